/* SPDX-License-Identifier: Apache-2.0 */
#include "role_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "attest_session.h"
#include "identity/crypto.h"
#include "log.h"
#include "sandbox.h"
#include "svid_prove.h"

#define BUNDLE_MAX_BYTES (4U << 20)
#define ACCEPTS_PER_TURN 16
#define ACCEPT_PAUSE_USEC 100000
#define DESCRIPTORS_WANTED 8192
/* Beside idle connections: own ones, and three for each attestation under way. */
#define DESCRIPTORS_RESERVED (32 + 3 * ATTEST_MAX_PENDING)

struct identity_role {
	struct attest_server server;
	sd_event *event;
	sd_event_source *listen_source;
	sd_event_source *pause_timer;
	struct crypto *crypto; /* of the FIPS module; NULL: what every process has */
};

static void role_freep(struct identity_role **rolep)
{
	struct identity_role *role = *rolep;

	if (role == NULL)
		return;
	attest_server_close(&role->server);
	bundle_set_freep(&role->server.bundles);
	sd_event_source_disable_unref(role->listen_source);
	sd_event_source_disable_unref(role->pause_timer);
	sd_event_unref(role->event);
	crypto_freep(&role->crypto);
	free(role);
}

static void freep(void *p)
{
	free(*(void **)p);
}

/* For answers that the enforcer counts on. It reads all the time; waiting is for the moment its queue is full. */
static void tell_enforcer(int ipc_fd, const void *packet)
{
	struct pollfd room = {.fd = ipc_fd, .events = POLLOUT};
	int r = ipc_send(ipc_fd, packet, -1);

	if (r == -EAGAIN && poll(&room, 1, 1000) == 1)
		r = ipc_send(ipc_fd, packet, -1);
	if (r < 0)
		log_error("identity: cannot answer the enforcer: %s", strerror(-r));
}

static int load_bundle(struct identity_role *role, const char *trust_domain, int fd, struct ipc_bundle_loaded *loaded)
{
	__attribute__((cleanup(freep))) void *pem = NULL;
	size_t len;
	int r = ipc_memfd_read(fd, BUNDLE_MAX_BYTES, &pem, &len);

	if (r < 0) {
		snprintf(loaded->why, sizeof(loaded->why), "cannot read the bundle (at most %u bytes): %s",
			 BUNDLE_MAX_BYTES, strerror(-r));
		return r;
	}
	return bundle_set_load_pem(role->server.bundles, trust_domain, pem, len, &loaded->dropped, loaded->why,
				   sizeof(loaded->why));
}

static void on_bundle(struct identity_role *role, const struct ipc_bundle *bundle, int fd)
{
	struct ipc_bundle_loaded loaded = {.h = {.type = IPC_BUNDLE_LOADED, .len = sizeof(loaded)}};

	memcpy(loaded.trust_domain, bundle->trust_domain, sizeof(loaded.trust_domain));
	if (fd >= 0) {
		loaded.authorities = load_bundle(role, bundle->trust_domain, fd, &loaded);
	} else {
		bundle_set_remove(role->server.bundles, bundle->trust_domain);
		snprintf(loaded.why, sizeof(loaded.why), "removed");
	}
	if (loaded.authorities >= 0)
		role->server.bundle_changes++;
	tell_enforcer(role->server.ipc_fd, &loaded);
}

static void on_svid_files(struct identity_role *role, const struct ipc_svid_files *files, int fd)
{
	struct ipc_tag_request proved;

	svid_prove(role->server.bundles, files, fd, &proved);
	tell_enforcer(role->server.ipc_fd, &proved);
}

static int on_ipc(sd_event_source *source, int ipc_fd, uint32_t events, void *userdata)
{
	struct identity_role *role = userdata;
	_Alignas(8) uint8_t packet[IPC_MAX_PACKET];
	int fd, type = ipc_receive(ipc_fd, packet, &fd);

	(void)source;
	(void)events;
	switch (type) {
	case 0:
	case -ECONNRESET:
		return sd_event_exit(role->event, EXIT_SUCCESS);
	case -EAGAIN:
		return 0;
	case IPC_BUNDLE:
		on_bundle(role, (const struct ipc_bundle *)packet, fd);
		break;
	case IPC_TAG_REPLY:
		attest_session_reply(&role->server, (const struct ipc_tag_reply *)packet);
		break;
	case IPC_SVID_FILES:
		on_svid_files(role, (const struct ipc_svid_files *)packet, fd);
		break;
	case IPC_PEER_FACTS:
		attest_session_peer(&role->server, (const struct ipc_peer_facts *)packet, fd);
		return 0;
	case IPC_PING:
		tell_enforcer(ipc_fd, packet);
		break;
	default:
		log_error("identity: unexpected packet of the enforcer (%d)", type);
	}
	if (fd >= 0)
		close(fd);
	return 0;
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
	sd_event_source *ipc = NULL;
	int r = sd_event_add_io(role->event, &ipc, role->server.ipc_fd, EPOLLIN, on_ipc, role);

	if (r < 0)
		return r;
	sd_event_source_set_priority(ipc, SD_EVENT_PRIORITY_IMPORTANT);
	sd_event_source_set_floating(ipc, 1);
	sd_event_source_unref(ipc);
	r = sd_event_add_io(role->event, &role->listen_source, listen_fd, EPOLLIN, on_connection, role);
	if (r < 0)
		return r;
	r = sd_event_add_time_relative(role->event, &role->pause_timer, CLOCK_MONOTONIC, 0, 0, on_pause_over, role);
	return r < 0 ? r : sd_event_source_set_enabled(role->pause_timer, SD_EVENT_OFF);
}

/* Before anything else is done with OpenSSL. */
static int use_fips(struct identity_role *role)
{
	const char *config = getenv(ROLE_FIPS);
	char why[1024];
	int r;

	if (config == NULL)
		return 0;
	r = crypto_fips_new(&role->crypto, config[0] != '\0' ? config : NULL, why, sizeof(why));
	if (r == 1) {
		log_error("identity: %s", why);
		return -ENOPKG;
	}
	if (r == 0)
		crypto_use(role->crypto);
	return r;
}

/* Whatever a library opens when first used is opened here: OpenSSL its configuration, sd-event (for timer slack) and we
 * the boot id. */
static int warm_up(struct identity_role *role)
{
	uint8_t byte;
	sd_id128_t boot;
	int r = sd_id128_get_boot(&boot);

	if (r < 0)
		return r;
	memcpy(role->server.boot_id, boot.bytes, sizeof(role->server.boot_id));
	if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_LOAD_CRYPTO_STRINGS |
					OPENSSL_INIT_ADD_ALL_CIPHERS | OPENSSL_INIT_ADD_ALL_DIGESTS,
				NULL) != 1 ||
	    RAND_bytes(&byte, 1) != 1)
		return -EIO;
	return 0;
}

static int set_up(struct identity_role *role, int ipc_fd, int listen_fd)
{
	int r = set_non_blocking(ipc_fd);

	signal(SIGINT, SIG_IGN); /* a terminal's Ctrl-C goes to every role; the enforcer decides when this one ends */
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	role->server.ipc_fd = ipc_fd;
	role->server.idle_max = raise_descriptor_limit();
	if (r == 0)
		r = set_non_blocking(listen_fd);
	if (r == 0)
		r = use_fips(role);
	if (r == 0)
		r = bundle_set_new(&role->server.bundles);
	if (r == 0)
		r = warm_up(role);
	if (r == 0)
		r = sd_event_new(&role->event);
	if (r < 0)
		return r;
	role->server.event = role->event;
	/* On the listening socket too, or a message sent before accept() could come without its sender. Where the kernel
	 * cannot, every connection is told so. */
	attest_socket_prepare(listen_fd);
	r = add_sources(role, listen_fd);
	return r < 0 ? r : role_sandbox(SANDBOX_IDENTITY);
}

int role_identity_main(int ipc_fd, int listen_fd)
{
	__attribute__((cleanup(role_freep))) struct identity_role *role = calloc(1, sizeof(*role));
	struct ipc_header ready = {.type = IPC_READY, .len = sizeof(ready)};
	int r = role != NULL ? set_up(role, ipc_fd, listen_fd) : -ENOMEM;

	if (r < 0) {
		log_error("identity: cannot start: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	tell_enforcer(ipc_fd, &ready);
	r = sd_event_loop(role->event);
	if (r < 0)
		log_error("identity: event loop: %s", strerror(-r));
	return r < 0 ? EXIT_FAILURE : r;
}
