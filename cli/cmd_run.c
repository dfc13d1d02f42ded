/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run: CMD in a cgroup of its own, attested before CMD executes.
 *
 * Three processes. The caller makes the cgroup and clears it up. The watcher enters the cgroup, attests, starts CMD and
 * stays to renew, because a renewal must come from inside. CMD is the watcher's child. Signals to the caller travel down,
 * the exit status travels up.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/attester.h"
#include "cli/bus.h"
#include "cli/cli.h"

#define CGROUP_NAME_MAX 64
#define CLEAR_TIMEOUT_MS 10000

/* ---- cgroup ---- */

static int cgroup_write(const char *dir, const char *file, const char *text)
{
	char path[4096 + 32];
	ssize_t n;
	int fd, error;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	error = errno;
	close(fd);
	return n < 0 ? -error : 0;
}

/* 1 if processes live in the cgroup or below it, 0 if not, -errno. With `fdp` the open cgroup.events, to be polled. */
static int cgroup_populated(const char *dir, int *fdp)
{
	char path[4096 + 32], text[256];
	ssize_t n;
	int error;

	if (*fdp < 0) {
		snprintf(path, sizeof(path), "%s/cgroup.events", dir);
		*fdp = open(path, O_RDONLY | O_CLOEXEC);
		if (*fdp < 0)
			return -errno;
	}
	n = pread(*fdp, text, sizeof(text) - 1, 0);
	error = errno;
	if (n < 0)
		return -error;
	text[n] = '\0';
	return strstr(text, "populated 1") != NULL;
}

/* Makes the cgroup, or takes an empty one of that name. */
static int cgroup_make(const char *dir)
{
	int fd = -1, populated;

	if (!mkdir(dir, 0755))
		return CLI_OK;
	if (errno != EEXIST) {
		cli_error("cannot make the cgroup %s: %s", dir, strerror(errno));
		return CLI_UNREACHABLE;
	}
	populated = cgroup_populated(dir, &fd);
	if (fd >= 0)
		close(fd);
	if (populated < 0) {
		cli_error("%s exists but is no cgroup: %s", dir, strerror(-populated));
		return CLI_UNREACHABLE;
	}
	if (populated) {
		cli_error("the cgroup %s exists and has processes; choose another --cgroup NAME", dir);
		return CLI_NO;
	}
	return CLI_OK;
}

/* Ends what CMD left behind, since it would live on in a place without a name, and removes the cgroup. */
static void cgroup_clear(const char *dir)
{
	int fd = -1, populated;

	cgroup_write(dir, "cgroup.kill", "1");
	for (int waited = 0; waited < CLEAR_TIMEOUT_MS; waited += 100) {
		struct pollfd p;

		populated = cgroup_populated(dir, &fd);
		if (populated <= 0)
			break;
		p = (struct pollfd){.fd = fd, .events = POLLPRI};
		poll(&p, 1, 100);
	}
	if (fd >= 0)
		close(fd);
	if (rmdir(dir) < 0 && errno != ENOENT)
		cli_error("cannot remove the cgroup %s: %s", dir, strerror(errno));
}

/* ---- watcher ---- */

/* A key press reaches the whole process group of the terminal by itself; all other signals are passed on. */
static void pass_on(pid_t pid, const siginfo_t *info)
{
	if (info->si_code != SI_KERNEL)
		kill(pid, info->si_signo);
}

static int status_code(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Waits until `pid` ends, handing on signals; with `attester`, renewing meanwhile. Returns its exit code. */
static int wait_for(pid_t pid, const sigset_t *signals, struct attester *attester)
{
	int status;

	for (;;) {
		siginfo_t info;
		pid_t ended;

		if (attester)
			attester_wait(attester, signals, &info);
		else if (sigwaitinfo(signals, &info) < 0)
			continue;
		if (info.si_signo != SIGCHLD) {
			pass_on(pid, &info);
			continue;
		}
		/* Children that we do not know are left from a program that executed us in its place. */
		while ((ended = waitpid(-1, &status, WNOHANG)) > 0)
			if (ended == pid)
				return status_code(status);
	}
}

static __attribute__((noreturn)) void execute(char **command, const sigset_t *old)
{
	int error;

	sigprocmask(SIG_SETMASK, old, NULL);
	prctl(PR_SET_PDEATHSIG, 0);
	execvp(command[0], command);
	error = errno;
	cli_error("cannot execute %s: %s", command[0], strerror(error));
	_exit(error == ENOENT ? 127 : 126);
}

static int watch(struct attester *attester, const char *dir, char **command, const sigset_t *signals,
		 const sigset_t *old)
{
	pid_t pid;
	int rc;

	rc = cgroup_write(dir, "cgroup.procs", "0");
	if (rc) {
		cli_error("cannot enter the cgroup %s: %s", dir, strerror(-rc));
		return CLI_UNREACHABLE;
	}
	rc = attester_prove(attester);
	if (rc != CLI_OK) {
		cli_error("%s was not started: no identity", command[0]);
		return rc;
	}
	pid = fork();
	if (pid < 0) {
		cli_error("cannot start %s: %s", command[0], strerror(errno));
		return CLI_UNREACHABLE;
	}
	if (!pid)
		execute(command, old);
	return wait_for(pid, signals, attester);
}

/* ---- caller ---- */

static bool name_valid(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > CGROUP_NAME_MAX || *name == '.' || !strncmp(name, "cgroup.", 7))
		return false;
	for (const char *p = name; *p; p++)
		if (*p == '/' || (unsigned char)*p <= 0x20 || *p == 0x7f)
			return false;
	return true;
}

/* Full path of the workload's cgroup. */
static int find_place(struct cli *cli, const char *name, char *out, size_t size)
{
	json_t *status;
	const char *mount, *subtree;
	int code, len;

	code = cli_bus_json(cli, "Status", &status);
	if (code != CLI_OK)
		return code;
	mount = cli_json_string(status, "cgroup_mount");
	subtree = cli_json_string(status, "subtree");
	len = snprintf(out, size, "%s%s%s/%s", mount, *subtree == '/' ? "" : "/", strcmp(subtree, "/") ? subtree : "",
		       name);
	if (!*mount || len < 0 || (size_t)len >= size)
		code = cli_bus_malformed(cli, "Status");
	json_decref(status);
	return code;
}

static int run_in(struct attester *attester, const char *dir, char **command)
{
	sigset_t signals, old;
	pid_t pid, parent = getpid();
	int code;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGQUIT);
	sigaddset(&signals, SIGCHLD);
	signal(SIGCHLD, SIG_DFL); /* ignored, it would take the exit status with it */
	sigprocmask(SIG_BLOCK, &signals, &old);
	code = cgroup_make(dir);
	if (code != CLI_OK)
		return code;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		cli_error("cannot start %s: %s", command[0], strerror(errno));
		code = CLI_UNREACHABLE;
	} else if (!pid) {
		/* Without the caller nobody would clear up: the watcher takes CMD down with it. */
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent)
			_exit(CLI_UNREACHABLE);
		_exit(watch(attester, dir, command, &signals, &old));
	} else {
		code = wait_for(pid, &signals, NULL);
	}
	cgroup_clear(dir);
	return code;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct attester attester = {.cli = cli, .quiet = true}; /* stdout belongs to CMD */
	const char *name = NULL;
	char own_name[CGROUP_NAME_MAX + 1], dir[4096];
	int code, i;

	for (i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--svid") && i + 1 < argc)
			attester.svid_path = argv[++i];
		else if (!strcmp(argv[i], "--key") && i + 1 < argc)
			attester.key_path = argv[++i];
		else if (!strcmp(argv[i], "--cgroup") && i + 1 < argc)
			name = argv[++i];
		else
			return cli_usage_error(&cmd_run, "unexpected argument %s; the command comes after `--`",
					       argv[i]);
	}
	if (!attester.svid_path || !attester.key_path)
		return cli_usage_error(&cmd_run, "--svid FILE and --key FILE are needed");
	if (i + 1 >= argc)
		return cli_usage_error(&cmd_run, "which command? It comes after `--`");
	if (!name) {
		snprintf(own_name, sizeof(own_name), "%.40s-%d", base_name(argv[i + 1]), (int)getpid());
		name = own_name;
	}
	if (!name_valid(name))
		return cli_usage_error(&cmd_run, "\"%s\" cannot be the name of a cgroup", name);
	code = find_place(cli, name, dir, sizeof(dir));
	return code == CLI_OK ? run_in(&attester, dir, argv + i + 1) : code;
}

const struct cli_command cmd_run = {
	.name = "run",
	.summary = "Starts a command in a cgroup of its own, attested before it executes",
	.usage = "--svid FILE --key FILE [--cgroup NAME] -- CMD [ARGUMENT]...",
	.help = "  --svid FILE     certificates in PEM, leaf first\n"
		"  --key FILE      private key of the leaf in PEM\n"
		"  --cgroup NAME   name of the cgroup in the managed subtree (name of CMD and a number); one that "
		"exists is\n"
		"                  taken if it has no processes\n\n"
		"No identity, no start. The identity is renewed while CMD runs. SIGTERM, SIGINT, SIGHUP and SIGQUIT "
		"are\n"
		"passed on. When CMD ends, what it left in the cgroup is killed and the cgroup removed. Needs root.\n\n"
		"Exit codes: that of CMD (128 + signal); 126, 127 CMD cannot be executed; 1 refused;\n"
		"2 usage, or a file that cannot be read; 3 no daemon.\n\n"
		"Example: policyctl run --svid web.pem --key web.key -- setpriv --reuid www-data --clear-groups "
		"./web\n",
	.run = run,
	.streams = true,
};
