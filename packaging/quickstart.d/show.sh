# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# show.sh - what the reader sees: headlines, sentences, commands with their output, and whether each showed what it should.
#
# A command is run by `show` exactly as it is printed. Its output is left in $out and its exit code in $rc, for the checks
# that follow. A check that does not hold ends the quickstart.

if [ -t 1 ] && [ -z "${NO_COLOR-}" ] && [ "${TERM-dumb}" != dumb ]; then
	bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' cyan=$'\e[36m' plain=$'\e[0m'
else
	bold='' red='' green='' cyan='' plain=''
fi
out='' rc=0 steps=0 checks=0

step() { # TITLE
	steps=$((steps + 1))
	printf '\n%s== %d. %s%s\n' "$bold" "$steps" "$1" "$plain"
}

say() { # a paragraph, wrapped
	printf '%s\n' "$*" | fold -s -w 100 | sed 's/ *$//'
}

command_line() { # prints a command as one would type it
	local word line=''
	for word; do
		case $word in
		'&' | '#'*) line+=" $word" ;;
		'' | *[!A-Za-z0-9_./:=,@%+-]*) line+=" '$word'" ;;
		*) line+=" $word" ;;
		esac
	done
	printf '%s  $%s%s\n' "$cyan" "$line" "$plain"
}

indent() {
	sed 's/^/    /'
}

show() { # COMMAND...
	command_line "$@"
	rc=0
	out=$("$@" 2>&1) || rc=$?
	[ -z "$out" ] || indent <<<"$out"
}

ok() { # WHAT
	checks=$((checks + 1))
	printf '  %sok%s  %s\n' "$green" "$plain" "$1"
}

die() { # WHY: the failure of a step
	printf '\n%sFAILED%s %s\n' "$red" "$plain" "$1" >&2
	if [ -s "$DIR/log/bulkheadd.log" ]; then
		echo "The last lines of bulkheadd:" >&2
		tail -n 15 "$DIR/log/bulkheadd.log" | indent >&2
	fi
	exit 1
}

exits() { # CODE WHAT: the command just shown ended with CODE
	[ "$rc" = "$1" ] || die "$2: expected exit code $1, got $rc"
	ok "$2"
}

says() { # PATTERN WHAT: the output just shown has a line that matches the extended regular expression
	grep -Eq -- "$1" <<<"$out" || die "$2: no line like /$1/ in the output"
	ok "$2"
}

holds() { # WHAT CONDITION...
	local what=$1
	shift
	"$@" || die "$what"
	ok "$what"
}

within() { # SECONDS CONDITION...: waits until it holds; 1 if it does not in time
	local end=$(($(now_ms) + $1 * 1000))
	shift
	until "$@"; do
		[ "$(now_ms)" -lt "$end" ] || return 1
		sleep 0.05
	done
}

now_ms() {
	local now=${EPOCHREALTIME/[.,]/}
	echo $((now / 1000))
}
