/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_request.h - the head of one HTTP/1.x request, read strictly (RFC 9112).
 *
 * It is for one resource that is read only: a request is a GET without a body, and what could be understood in two ways
 * is refused. Pure: no I/O.
 */
#ifndef BULKHEAD_DAEMON_HTTP_REQUEST_H
#define BULKHEAD_DAEMON_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#define HTTP_MAX_REQUEST 8192U /* bytes of a head */
#define HTTP_MORE 0	       /* the head has not ended */

struct http_request {
	bool plain; /* asks for text/plain, and not for OpenMetrics */
};

/*
 * Reads what has come so far. Returns HTTP_MORE, or the status that answers it: 200 if it asks for `path`, 400, 404, 405,
 * 421 (`local`: the Host is none of this machine's own, so a browser was made to ask), 431, 505.
 */
int http_request_read(const char *bytes, size_t len, const char *path, bool local, struct http_request *request);
/* "OK", "Not Found", ... */
const char *http_reason(int status);

#endif
