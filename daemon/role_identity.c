/* SPDX-License-Identifier: Apache-2.0 */
#include "role_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <systemd/sd-id128.h>
#include <time.h>
#include <unistd.h>

#include "attest_session.h"
#include "chains.h"
#include "identity/bundle_text.h"
#include "identity/crypto.h"
#include "fips.h"
#include "log.h"
#include "role_process.h"
#include "sandbox.h"
#include "svid_prove.h"

/* Of the second in which identities that lost their authority have to end. */
#define REVERIFY_MS 500
/* About as many milliseconds. */
#define CHAINS_PER_TURN 4
#define ACCEPTS_PER_TURN 16
#define ACCEPT_PAUSE_USEC 100000
#define DESCRIPTORS_WANTED 8192
/* Beside idle connections: own ones, and three for each attestation under way. */
#define DESCRIPTORS_RESERVED (32 + 3 * ATTEST_PLACES)

struct identity_role {
	struct attest_server server;
	struct role_process process;
	sd_event_source *listen_source;
	sd_event_source *pause_timer;
	sd_event_source *idle; /* while there are chains to verify again without haste */
	size_t next_chain;
	bool chains_moved;     /* since the first of them was looked at */
	struct crypto *crypto; /* of the FIPS module; NULL: what every process has */
};

static void role_freep(struct identity_role **rolep)
{
	struct identity_role *role = *rolep;

	if (role == NULL)
		return;
	attest_server_close(&role->server);
	bundle_set_freep(&role->server.bundles);
	chains_freep(&role->server.chains);
	sd_event_source_disable_unref(role->listen_source);
	sd_event_source_disable_unref(role->pause_timer);
	sd_event_source_disable_unref(role->idle);
	role_process_close(&role->process);
	crypto_freep(&role->crypto);
	free(role);
}

static void freep(void *p)
{
	free(*(void **)p);
}

/* ---- bundles ---- */

static int load_bundle(struct identity_role *role, const struct ipc_bundle *bundle, int fd,
		       struct bundle_report *report)
{
	__attribute__((cleanup(freep))) void *text = NULL;
	size_t len;
	int r = ipc_memfd_read(fd, BUNDLE_MAX_BYTES, &text, &len);

	memset(report, 0, sizeof(*report));
	if (r == 0)
		r = bundle_set_load(role->server.bundles, bundle->trust_domain, (enum bundle_format)bundle->format,
				    text, len, report);
	if (r < 0 && report->why[0] == '\0')
		snprintf(report->why, sizeof(report->why), "cannot read the bundle: %s", strerror(-r));
	return r;
}

static void tell_authorities(struct identity_role *role, const struct ipc_bundle *bundle)
{
	struct ipc_bundle_authority packet = {.h = {.type = IPC_BUNDLE_AUTHORITY, .len = sizeof(packet)}};
	struct bundle_authority_info info;

	packet.offer = bundle->offer;
	memcpy(packet.trust_domain, bundle->trust_domain, sizeof(packet.trust_domain));
	for (size_t i = 0; bundle_set_authority(role->server.bundles, bundle->trust_domain, i, &info); i++) {
		packet.not_after = info.not_after;
		memcpy(packet.id, info.id, sizeof(packet.id));
		memcpy(packet.subject, info.subject, sizeof(packet.subject));
		memcpy(packet.key_id, info.key_id, sizeof(packet.key_id));
		role_process_tell(&role->process, &packet, -1);
	}
}

static void tell_entries(struct identity_role *role, const struct ipc_bundle *bundle,
			 const struct bundle_report *report)
{
	for (unsigned i = 0; i < report->n_entries; i++) {
		const struct bundle_entry *entry = &report->entries[i];
		struct ipc_bundle_entry packet = {
			.h = {.type = IPC_BUNDLE_ENTRY, .len = sizeof(packet)},
			.offer = bundle->offer,
			.index = entry->index,
			.rule = (uint32_t)entry->rule,
			.dropped = entry->dropped,
		};

		memcpy(packet.trust_domain, bundle->trust_domain, sizeof(packet.trust_domain));
		snprintf(packet.text, sizeof(packet.text), "%s", entry->text);
		role_process_tell(&role->process, &packet, -1);
	}
}

/* ---- identities in force ---- */

static uint64_t boottime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool is_vouched_for(const struct chains_item *item, const struct bundle_authority_info *authorities, size_t n)
{
	for (unsigned at = 0; at < item->n_anchors; at++) {
		for (size_t i = 0; i < n; i++) {
			if (memcmp(item->anchors[at].id, authorities[i].id, sizeof(item->anchors[at].id)) == 0)
				return true;
		}
	}
	return false;
}

/* Verifies it by the bundle that there is. Tells the enforcer, if other authorities vouch for it than before. */
static void chain_look(struct identity_role *role, size_t i)
{
	struct chains_item item = chains_at(role->server.chains, i);
	struct ipc_vouch vouch = {.h = {.type = IPC_VOUCH, .len = sizeof(vouch)}, .key = item.key};
	struct ipc_voucher before[IPC_VOUCHERS] = {0};
	struct svid_verdict verdict = {.n_anchors = item.n_anchors};

	memcpy(verdict.anchors, item.anchors, sizeof(verdict.anchors));
	attest_vouchers(&verdict, before);
	if (chains_verify(role->server.chains, i, role->server.bundles, time(NULL), &verdict) != 0)
		return;
	attest_vouchers(&verdict, vouch.vouchers);
	if (memcmp(before, vouch.vouchers, sizeof(before)) != 0)
		role_process_tell(&role->process, &vouch, -1);
}

/* An authority that joined a bundle may vouch for who is there already, and then the one that it follows can leave, however
 * many identities there are. Nothing else waits for that. */
static int on_idle(sd_event_source *source, void *userdata)
{
	struct identity_role *role = userdata;
	struct chains *chains = role->server.chains;

	for (unsigned looked = 0; looked < CHAINS_PER_TURN; role->next_chain++) {
		if (role->next_chain >= chains_count(chains)) {
			if (!role->chains_moved)
				return sd_event_source_set_enabled(source, SD_EVENT_OFF);
			role->chains_moved = false;
			role->next_chain = 0;
		}
		if (role->next_chain < chains_count(chains) && chains_at(chains, role->next_chain).stale) {
			chain_look(role, role->next_chain);
			looked++;
		}
	}
	return 0;
}

static void look_when_idle(struct identity_role *role, const char *trust_domain)
{
	chains_mark_stale(role->server.chains, trust_domain);
	role->next_chain = 0;
	role->chains_moved = false;
	if (sd_event_source_set_enabled(role->idle, SD_EVENT_ON) < 0)
		log_warning("identity: chains are not verified again by the new bundle of %s", trust_domain);
}

/* For chains none of whose authorities is in the bundle any more: whether they lead to one that is. An identity of which the
 * enforcer hears nothing ends; so one that cannot be verified again in time does, and cutting those that have to be cut
 * never waits for more than REVERIFY_MS. */
static void vouch_again(struct identity_role *role, const char *trust_domain)
{
	__attribute__((cleanup(freep))) struct bundle_authority_info *authorities =
		calloc(BUNDLE_MAX_AUTHORITIES, sizeof(*authorities));
	uint64_t until = boottime_ms() + REVERIFY_MS;
	size_t n = 0, skipped = 0;

	if (authorities == NULL)
		return;
	while (n < BUNDLE_MAX_AUTHORITIES &&
	       bundle_set_authority(role->server.bundles, trust_domain, n, &authorities[n]))
		n++;
	for (size_t i = 0; i < chains_count(role->server.chains); i++) {
		struct chains_item item = chains_at(role->server.chains, i);

		if (strcmp(item.trust_domain, trust_domain) != 0 || is_vouched_for(&item, authorities, n))
			continue;
		if (boottime_ms() < until)
			chain_look(role, i);
		else
			skipped++;
	}
	if (skipped > 0)
		log_warning("identity: %zu identities of %s could not be verified again within %d ms and end", skipped,
			    trust_domain, REVERIFY_MS);
}

static void on_bundle(struct identity_role *role, const struct ipc_bundle *bundle, int fd)
{
	struct ipc_bundle_loaded loaded = {.h = {.type = IPC_BUNDLE_LOADED, .len = sizeof(loaded)}};
	struct bundle_report report;

	if (fd < 0) {
		bundle_set_remove(role->server.bundles, bundle->trust_domain);
		role->server.bundle_changes++;
		return;
	}
	loaded.offer = bundle->offer;
	memcpy(loaded.trust_domain, bundle->trust_domain, sizeof(loaded.trust_domain));
	loaded.authorities = load_bundle(role, bundle, fd, &report);
	loaded.dropped = report.dropped;
	loaded.has_sequence = report.has_sequence;
	loaded.sequence = report.sequence;
	loaded.refresh_s = report.refresh_s;
	loaded.changed = report.changed;
	loaded.rule = (uint32_t)report.rule;
	snprintf(loaded.why, sizeof(loaded.why), "%s", report.why);
	if (loaded.authorities >= 0) {
		role->server.bundle_changes++;
		tell_authorities(role, bundle);
		tell_entries(role, bundle, &report);
		vouch_again(role, bundle->trust_domain);
		if (report.changed)
			look_when_idle(role, bundle->trust_domain);
	}
	role_process_tell(&role->process, &loaded, -1);
}

static void on_svid_files(struct identity_role *role, const struct ipc_svid_files *files, int fd)
{
	struct ipc_tag_request proved;

	svid_prove(role->server.bundles, files, fd, &proved);
	role_process_tell(&role->process, &proved, -1);
}

static void on_room(void *ctx)
{
	struct identity_role *role = ctx;

	attest_server_on_room(&role->server);
}

static bool on_packet(void *ctx, int type, const void *packet, int *fdp)
{
	struct identity_role *role = ctx;

	switch (type) {
	case IPC_BUNDLE:
		on_bundle(role, packet, *fdp);
		return true;
	case IPC_TAG_ENDED:
		chains_forget(role->server.chains, ((const struct ipc_tag_ended *)packet)->key);
		role->chains_moved = true;
		return true;
	case IPC_TAG_REPLY:
		attest_session_reply(&role->server, packet);
		return true;
	case IPC_SVID_FILES:
		on_svid_files(role, packet, *fdp);
		return true;
	case IPC_PEER_FACTS:
		attest_session_peer(&role->server, packet, *fdp);
		*fdp = -1;
		return true;
	default:
		return false;
	}
}

static int on_pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct identity_role *role = userdata;

	(void)source;
	(void)usec;
	return sd_event_source_set_enabled(role->listen_source, SD_EVENT_ON);
}

/* Out of descriptors or memory, the socket stays readable: look away for a moment instead of spinning. */
static int pause_accepting(struct identity_role *role, int error)
{
	log_warning("identity: cannot accept connections for now: %s", strerror(error));
	sd_event_source_set_enabled(role->listen_source, SD_EVENT_OFF);
	sd_event_source_set_time_relative(role->pause_timer, ACCEPT_PAUSE_USEC);
	return sd_event_source_set_enabled(role->pause_timer, SD_EVENT_ONESHOT);
}

static int on_connection(sd_event_source *source, int listen_fd, uint32_t events, void *userdata)
{
	struct identity_role *role = userdata;

	(void)source;
	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0)
			attest_session_new(&role->server, fd);
		else if (errno == EAGAIN)
			return 0;
		else if (errno != EINTR && errno != ECONNABORTED)
			return pause_accepting(role, errno);
	}
	return 0;
}

static int set_non_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static unsigned raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	if (limit.rlim_cur < DESCRIPTORS_WANTED) {
		limit.rlim_cur = limit.rlim_max < DESCRIPTORS_WANTED ? limit.rlim_max : DESCRIPTORS_WANTED;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur <= DESCRIPTORS_RESERVED)
		return 0;
	return limit.rlim_cur - DESCRIPTORS_RESERVED < ATTEST_MAX_IDLE
		       ? (unsigned)(limit.rlim_cur - DESCRIPTORS_RESERVED)
		       : ATTEST_MAX_IDLE;
}

static int add_sources(struct identity_role *role, int listen_fd)
{
	int r = sd_event_add_io(role->process.event, &role->listen_source, listen_fd, EPOLLIN, on_connection, role);

	if (r < 0)
		return r;
	r = sd_event_add_defer(role->process.event, &role->idle, on_idle, role);
	if (r >= 0)
		r = sd_event_source_set_priority(role->idle, SD_EVENT_PRIORITY_IDLE);
	if (r >= 0)
		r = sd_event_source_set_enabled(role->idle, SD_EVENT_OFF);
	if (r < 0)
		return r;
	r = sd_event_add_time_relative(role->process.event, &role->pause_timer, CLOCK_MONOTONIC, 0, 0, on_pause_over,
				       role);
	return r < 0 ? r : sd_event_source_set_enabled(role->pause_timer, SD_EVENT_OFF);
}

/* Whatever a library opens when first used is opened here: OpenSSL its configuration, jansson the random seed of its hashes,
 * sd-event (for timer slack) and we the boot id. */
static int warm_up(struct identity_role *role)
{
	uint8_t byte;
	sd_id128_t boot;
	int r = sd_id128_get_boot(&boot);

	if (r < 0)
		return r;
	memcpy(role->server.boot_id, boot.bytes, sizeof(role->server.boot_id));
	json_object_seed(0);
	if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_LOAD_CRYPTO_STRINGS |
					OPENSSL_INIT_ADD_ALL_CIPHERS | OPENSSL_INIT_ADD_ALL_DIGESTS,
				NULL) != 1 ||
	    RAND_bytes(&byte, 1) != 1)
		return -EIO;
	return 0;
}

static int set_up(struct identity_role *role, int listen_fd)
{
	int r = role_process_open(&role->process);

	role->server.ipc_fd = role->process.ipc_fd;
	role->server.idle_max = raise_descriptor_limit();
	if (r == 0)
		r = set_non_blocking(listen_fd);
	if (r == 0)
		r = fips_use(&role->crypto, role->process.name);
	if (r == 0)
		r = bundle_set_new(&role->server.bundles);
	if (r == 0)
		r = chains_new(&role->server.chains);
	if (r == 0)
		r = refusals_new(&role->server.refusals);
	if (r == 0)
		r = warm_up(role);
	if (r < 0)
		return r;
	role->server.event = role->process.event;
	role->server.ipc_source = role->process.ipc;
	/* On the listening socket too, or a message sent before accept() could come without its sender. Where the kernel
	 * cannot, every connection is told so. */
	attest_socket_prepare(listen_fd);
	r = add_sources(role, listen_fd);
	return r < 0 ? r : role_sandbox(SANDBOX_IDENTITY);
}

int role_identity_main(int ipc_fd, int listen_fd)
{
	__attribute__((cleanup(role_freep))) struct identity_role *role = calloc(1, sizeof(*role));

	if (!role) {
		log_error("identity: cannot start: %s", strerror(ENOMEM));
		return EXIT_FAILURE;
	}
	role->process = (struct role_process){
		.name = "identity", .ipc_fd = ipc_fd, .packet = on_packet, .room = on_room, .ctx = role};
	return role_process_run(&role->process, set_up(role, listen_fd));
}
