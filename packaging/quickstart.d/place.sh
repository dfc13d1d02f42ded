# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# place.sh - the place of a run and its removal.
#
# Everything a run makes is named after its process id and is in one of four places: the directory $DIR, the managed
# subtree $QUICKSTART_CGROUP, the pins $PINS, and a network namespace, which ends with its last process. So removing needs
# to know nothing but that id, and works from wherever a run was interrupted.

mount_point() { # TYPE: where a file system of this type is mounted first
	awk -v type="$1" '{ for (i = 7; $i != "-"; i++); if ($(i + 1) == type) { print $5; exit } }' /proc/self/mountinfo
}

place_name() { # PID
	local mount bpffs
	mount=$(mount_point cgroup2)
	bpffs=$(mount_point bpf)
	NAME=bulkhead-quickstart-$1
	DIR=${TMPDIR:-/tmp}/$NAME
	QUICKSTART_CGROUP=$mount/$NAME
	PINS=${bpffs:-/sys/fs/bpf}/$NAME
	export QUICKSTART_CGROUP
	# The first kernel that tells a process's cgroup by pidfd, which attestation rests on.
	[ "$(printf '%s\n' 6.13 "$(uname -r)" | sort -V | head -n 1)" = 6.13 ] || {
		echo "quickstart: this kernel is $(uname -r); attestation needs Linux 6.13 or later" >&2
		exit 1
	}
	[ -n "$mount" ] || { echo "quickstart: no cgroup2 file system is mounted; Bulkhead needs cgroup v2" >&2; exit 1; }
}

place_make() {
	umask 022
	mkdir "$DIR"
	mkdir "$DIR/run" "$DIR/state" "$DIR/log" "$DIR/bundles" "$DIR/policy"
	if [ -z "$(mount_point bpf)" ]; then
		touch "$DIR/bpffs-is-ours"
		mount -t bpf bpf /sys/fs/bpf
	fi
	mkdir "$QUICKSTART_CGROUP"
}

in_background() { # OUTPUT COMMAND...: its pid is left in $!; a key press at the terminal does not reach it
	local output=$1
	shift
	setsid "$@" >"$output" 2>"$output.err" </dev/null &
}

gone() { # PID
	! kill -0 "$1" 2>/dev/null || grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"
}

empty() { # a cgroup without processes, or none at all
	! [ -e "$1/cgroup.events" ] || grep -q 'populated 0' "$1/cgroup.events"
}

end_process() { # PID
	kill "$1" 2>/dev/null || return 0
	within 3 gone "$1" || kill -9 "$1" 2>/dev/null || true
	within 3 gone "$1" || true
}

# The daemon of this run, and not whoever has its process id by now.
daemon_is_ours() {
	[ -s "$DIR/daemon.pid" ] && tr '\0' ' ' <"/proc/$(<"$DIR/daemon.pid")/cmdline" 2>/dev/null | grep -qF "$DIR"
}

# In this order: nobody who acts, then nobody who guards, then what was in force, then the places.
place_remove() {
	local pid
	# Anybody may make a directory of that name in /tmp; only root's tells us what to undo.
	if [ -L "$DIR" ] || { [ -e "$DIR" ] && ! [ -O "$DIR" ]; }; then
		return 1
	fi
	if [ -d "$QUICKSTART_CGROUP" ]; then
		echo 1 >"$QUICKSTART_CGROUP/cgroup.kill"
		within 5 empty "$QUICKSTART_CGROUP"
	fi
	for pid in $(jobs -p); do
		end_process "$pid"
	done
	! daemon_is_ours || end_process "$(<"$DIR/daemon.pid")"
	wait
	[ ! -d "$PINS" ] || rm -r "$PINS"
	[ ! -d "$QUICKSTART_CGROUP" ] || find "$QUICKSTART_CGROUP" -depth -type d -exec rmdir {} +
	if [ -e "$DIR/bpffs-is-ours" ] && [ "$(mount_point bpf)" = /sys/fs/bpf ]; then
		umount /sys/fs/bpf || return
	fi
	[ ! -d "$DIR" ] || rm -r "$DIR"
}

place_left() { # names what is still there
	local path
	for path in "$DIR" "$QUICKSTART_CGROUP" "$PINS"; do
		[ ! -e "$path" ] || echo "$path"
	done
	for path in $(jobs -pr); do
		echo "process $path"
	done
}
