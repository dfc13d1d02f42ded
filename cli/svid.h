/* SPDX-License-Identifier: Apache-2.0 */
/*
 * svid.h - the subcommands of `policyctl svid` that need no bundle.
 */
#ifndef BULKHEAD_CLI_SVID_H
#define BULKHEAD_CLI_SVID_H

#include <time.h>

#include "cli/cli.h"

/* What certificates say, and which rules they break on their own. */
int svid_show(struct cli *cli, const char *path, time_t at);
/* Whether each text is the SPIFFE ID of a workload, and where not. */
int svid_id_check(struct cli *cli, char *const *ids, size_t n);

#endif
