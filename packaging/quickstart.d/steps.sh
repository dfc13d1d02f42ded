# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# steps.sh - the tour, one function for each step. All of it runs in $DIR, so that the commands are short.
#
# shellcheck disable=SC2154 # $out, $bold, $plain: show.sh sets them

WEB=spiffe://prod.example/ns/shop/sa/web
DB=spiffe://prod.example/ns/shop/sa/db

# ---- what the steps have in common ----

daemon_start() {
	command_line bulkheadd --instance quickstart --subtree "/$NAME" --run-dir run --audit-log log/audit.jsonl ... '&'
	setsid bulkheadd --instance quickstart --subtree "/$NAME" --run-dir "$DIR/run" --state-dir "$DIR/state" \
		--audit-log "$DIR/log/audit.jsonl" --bundle-dir "$DIR/bundles" --policy-dir "$DIR/policy" --pin-dir "$PINS" \
		>>log/bulkheadd.log 2>&1 </dev/null &
	daemon=$!
	echo "$daemon" >daemon.pid
	within 10 daemon_answers || die "bulkheadd did not start"
}

daemon_answers() {
	! gone "$daemon" || die "bulkheadd ended"
	policyctl status >/dev/null 2>&1
}

workload_start() { # OUTPUT COMMAND...
	local output=$1
	shift
	command_line "$@" '&'
	in_background "$output" "$@"
}

bytes() { # FILE PATTERN: the number of bytes in the last line that matches
	grep -E "$2" "$1" 2>/dev/null | tail -n 1 | grep -Eo '[0-9]+ bytes' | grep -Eo '[0-9]+' || echo 0
}

more_than() { # N FILE PATTERN
	[ "$(bytes "$2" "$3")" -gt "$1" ]
}

logged() { # JQ-CONDITION: an event of the audit log fulfils it
	jq -e -n "first(inputs | select($1)) | true" log/audit.jsonl >/dev/null 2>&1
}

# ---- the steps ----

step_identities() {
	step "Identities: a trust domain, and an SVID for each workload"
	say "An SVID is a certificate that carries a SPIFFE ID: who a workload is, wherever it runs. A SPIFFE issuer such as" \
		"SPIRE hands them out; here a CA for trials does. The daemon is given the CA's trust bundle only."
	show policyctl ca init ca --trust-domain prod.example
	exits 0 "a CA for prod.example"
	show policyctl ca bundle ca --out bundles/prod.example.pem
	exits 0 "its trust bundle: by this the daemon knows its SVIDs"
	show policyctl ca issue ca "$WEB" --ttl 1d
	exits 0 "an SVID for web, and its key"
	show policyctl ca issue ca "$DB" --ttl 1d
	exits 0 "and for db"
	show policyctl svid show web.pem
	says "SPIFFE ID +$WEB" "web.pem says: I am web"
	show policyctl ca init foreign --trust-domain prod.example
	show policyctl ca issue foreign "$WEB" --ttl 1d --out fake
	exits 0 "somebody else has made a CA and an SVID of the same names"
	show policyctl svid verify --bundle bundles/prod.example.pem --trust-domain prod.example web.pem
	exits 0 "and the trust bundle confirms it"
	show policyctl svid verify --bundle bundles/prod.example.pem --trust-domain prod.example fake.pem
	exits 1 "fake.pem claims the same ID, signed by a foreign CA: the broken rule is named"
}

step_daemon() {
	step "The daemon and the policy"
	say "bulkheadd attaches its programs to one part of the cgroup tree, /$NAME, and decides for what runs below it." \
		"Without a policy everything there is denied."
	daemon_start
	show policyctl status
	exits 0 "enforcement is in place"
	show cat shop.yaml
	show policyctl check shop.yaml
	exits 0 "the policy is valid"
	sed 's/from: web/from: wbe/' shop.yaml >typo.yaml
	show policyctl apply typo.yaml
	exits 1 "a mistake is shown where it is, and nothing changes"
	show policyctl apply shop.yaml
	exits 0 "now it is in force"
}

step_allowed() {
	step "Allowed: web talks to db"
	say "'policyctl run' makes a cgroup, proves the SVID and its key to the daemon from within, and only then starts the" \
		"program. The programs here are short Python scripts that know nothing of Bulkhead. db listens on 5432 and 5433."
	workload_start db.out policyctl run --svid db.pem --key db.key --cgroup db -- server.py 5432 5433
	workload_start web.out policyctl run --svid web.pem --key web.key --cgroup web -- server.py 8080
	within 10 grep -qs "listening on 127.0.0.1:8080" web.out || die "web did not start: $(cat web.out.err)"
	within 10 grep -qs "listening on 127.0.0.1:5433" db.out || die "db did not start: $(cat db.out.err)"
	within 10 grep -qs "listening on 127.0.0.1:5432" db.out || die "db did not start: $(cat db.out.err)"
	show policyctl identities
	says "$WEB.*/web" "the kernel knows web by its cgroup, until the SVID ends"
	says "$DB.*/db" "and db; no address plays a part in it"
	show policyctl run --svid web.pem --key web.key -- client.py ask 5432 'Who are you'
	exits 0 "db answers web"
}

step_denied() {
	step "Denied: everything else, with the reason"
	show policyctl run --svid web.pem --key web.key -- client.py ask 5433 'Who are you'
	says 'EPERM' "web on another port of db: refused at once, without a packet, since no rule can allow it"
	within 5 logged '.event.action == "flow-denied" and .destination.port == 5433' || die "no audit line of the denial"
	show policyctl why-denied --last 1
	says 'tcp/5433' "why: who, to whom, what, and the rule that comes nearest"
	say "Now the other way round, from a process that somebody has smuggled into db's cgroup:"
	show in-cgroup db client.py ask 8080 'Who are you'
	says 'EPERM' "db cannot open a connection to web: a rule has a direction"
}

step_intruders() {
	step "Denied: who has no identity, and who lies about it"
	mkdir "$QUICKSTART_CGROUP/intruder"
	show in-cgroup intruder client.py ask 5432 'Let me in'
	says 'EPERM' "a process in the managed subtree without an SVID: no identity, no connection"
	show client.py ask 5432 'Let me in'
	says 'timeout' "a process of the host, outside the subtree: its packets are dropped before db's socket"
	show in-cgroup intruder policyctl attest --svid fake.pem --key fake.key
	exits 1 "the certificate of the foreign CA is refused"
	says 'untrusted-issuer' "and the rule that it breaks is named, here and in the audit log"
	show in-cgroup intruder policyctl attest --svid web.pem --key fake.key
	exits 1 "web's own certificate, copied without its key, is refused too"
	show in-cgroup intruder client.py ask 5432 'Let me in'
	says 'EPERM' "the intruder is where it was"
}

step_explain() {
	step "Asking the policy instead of trying"
	show policyctl explain --from "$WEB" --to "$DB" tcp/5432
	exits 0 "both ends judge a flow: where it leaves and where it arrives"
	says 'web-to-db' "the rule is named with file and line"
	show policyctl explain --from "$DB" --to "$WEB" tcp/5432
	exits 1 "exit code 1 is a no: this fits into a script or a CI job"
}

step_policy_edit() {
	local before cut received
	step "A policy edit cuts a running transfer"
	workload_start stream.out policyctl run --svid web.pem --key web.key --cgroup transfer -- client.py stream 5432 web
	within 5 more_than 3000000 db.out '^web: ' || die "web's transfer did not start: $(cat stream.out stream.out.err)"
	show tail -n 2 stream.out
	before=$(bytes db.out '^web: ')
	ok "web sends to db: $before bytes have arrived"
	sed '/name: web-to-db/,/log:/d' shop.yaml >edited.yaml
	show diff shop.yaml edited.yaml
	show policyctl apply edited.yaml
	exits 0 "the edited policy is in force"
	cut=$(now_ms)
	within 2 grep -q 'ended: ' stream.out || die "the sender did not learn that its transfer is no longer allowed"
	within 2 grep -q '^web: .*ended: ' db.out || die "the receiver did not learn that the transfer is no longer allowed"
	ok "both ends got an error within $(($(now_ms) - cut)) ms:"
	show tail -n 1 stream.out
	show grep '^web: .*ended' db.out
	received=$(bytes db.out '^web: ')
	sleep 0.5
	holds "$received bytes arrived, and not one more since" test "$(bytes db.out '^web: ')" = "$received"
	show in-cgroup web client.py ask 5432 'May I still'
	says 'EPERM' "a new connection is refused"
	show policyctl apply shop.yaml
	exits 0 "the first policy is in force again"
}

step_expiry() {
	local end received last
	step "An identity ends by itself, without the daemon"
	say "The batch job has an SVID that ends in 7 seconds. web has a transfer as well, which must survive what follows."
	workload_start web-stream.out in-cgroup web client.py stream 5432 web-again
	# shellcheck disable=SC2034 # for --keep, which ends it
	streaming=$!
	within 5 more_than 0 db.out '^web-again: ' || die "web's transfer did not start: $(cat web-stream.out)"
	show policyctl ca issue ca "${WEB%/*}/batch" --ttl 7s
	exits 0 "an SVID for 7 seconds"
	end=$(svid_end batch.pem)
	workload_start batch.out policyctl run --svid batch.pem --key batch.key --cgroup batch -- client.py stream 5432 batch
	within 5 more_than 1000000 db.out '^batch: ' || die "the transfer did not start: $(cat batch.out batch.out.err)"
	show policyctl identities
	says 'sa/batch' "the batch job has its identity, and transfers"
	command_line kill -KILL "$daemon" '# bulkheadd'
	kill -KILL "$daemon"
	{ wait "$daemon"; } 2>/dev/null || true
	show policyctl status
	exits 3 "nobody is there to take the identity away"
	holds "the SVID is still valid, by $((end - $(now_ms))) ms" test "$(now_ms)" -lt "$end"
	received=$(bytes db.out '^batch: ')
	within 3 more_than "$received" db.out '^batch: ' || die "the transfer ended with the daemon"
	ok "the transfer goes on: $received bytes so far"
	within 9 is_past "$end" || die "the clock stands still"
	sleep 0.5
	received=$(bytes db.out '^batch: ')
	grep '^batch: ' db.out | tail -n 1 | indent
	sleep 1
	holds "the SVID ended at $(date -d "@$((end / 1000))" +%T): $received bytes had arrived, and not one more since" \
		test "$(bytes db.out '^batch: ')" = "$received"
	last=$(last_byte_ms "$end")
	holds "the last of them arrived $((end - last)) ms before the SVID ended" test $((end - last)) -gt -500 -a $((end - last)) -lt 1500
	show in-cgroup batch client.py ask 5432 'May I still'
	says 'EPERM' "a new connection is refused: the kernel compares the deadline itself"
}

svid_end() { # FILE: when the SVID ends, in ms
	echo $(($(date -d "$(policyctl --json svid show "$1" | jq -r '.certificates[0].not_after')" +%s) * 1000))
}

is_past() { # MS
	[ "$(now_ms)" -gt "$1" ]
}

last_byte_ms() { # MS, of a time near it: when db got the last byte of the batch job
	date -d "$(date -d "@$(($1 / 1000))" +%F) $(grep '^batch: .*the last at' db.out | tail -n 1 | grep -Eo '[0-9:.]+$')" +%s%3N
}

step_daemon_dead() {
	local before
	step "Enforcement while the daemon is dead, and its return"
	show in-cgroup web client.py ask 5432 'Are you there'
	exits 0 "what was allowed is allowed"
	show in-cgroup web client.py ask 5433 'Are you there'
	says 'EPERM' "what was denied is denied"
	show in-cgroup intruder client.py ask 5432 'Is nobody looking'
	says 'EPERM' "and without an identity nothing works either"
	before=$(bytes db.out '^web-again: ')
	daemon_start
	show policyctl status
	says 'took over' "the new daemon adopted what it found in the kernel"
	within 3 more_than "$before" db.out '^web-again: ' || die "web's transfer has ended: $(tail -n 1 web-stream.out)"
	show tail -n 1 web-stream.out
	holds "web's transfer has run through all of it on one connection" test "$(grep -c 'ended: ' web-stream.out)" = 0
	show policyctl identities
	says "$WEB.*/web" "web and db kept their identity; the batch job has none any more"
	holds "batch is not among them" test "$(grep -c 'sa/batch' <<<"$out")" = 0
}

step_audit() {
	step "The audit log: each of these, in one line"
	say "log/audit.jsonl has one JSON object a line, in Elastic Common Schema fields. 'policyctl monitor --all' prints" \
		"them for people; here is a line of each kind:"
	within 5 logged '.event.action == "flow-denied" and .event.code == "EXPIRED"' || die "no audit line of the expired identity"
	within 5 logged '.event.action == "daemon-started" and (.event.reason | test("adopted"))' || die "no audit line of the adoption"
	in_background monitor.out policyctl monitor --all --since-start
	within 5 grep -qs adopted monitor.out || die "policyctl monitor does not show what is in the log"
	kill $!
	wait $! || true
	audit_line "identity attested" 'identity-attested .*sa/web'
	audit_line "allowed" 'allow +egress .*tcp/5432 .*sa/web .*web-to-db'
	audit_line "denied: another port" 'DENY +egress .*tcp/5433 .*sa/web'
	audit_line "denied: wrong way" 'DENY +egress .*tcp/8080 .*sa/db'
	audit_line "denied: no identity" 'DENY +egress .*unidentified.*intruder'
	audit_line "denied: from outside" 'DENY +ingress .*tcp/5432 +(host|world|127).*sa/db'
	audit_line "certificate refused" 'identity-refused .*untrusted-issuer'
	audit_line "policy edited" 'policy-applied revision 2'
	audit_line "sockets cut" 'sockets-cut'
	audit_line "denied: identity ended" 'DENY .*EXPIRED'
	audit_line "daemon came back" 'daemon-started.*adopted'
	say "One of them as it is in the file:"
	show jq -cn 'first(inputs | select(.event.action == "flow-allowed"))' log/audit.jsonl
	says '"name":"web-to-db".*"proof":"verified"' "every verdict has its rule, both identities and how they were proved, and the cgroup"
	show policyctl status
	says '0 lost' "what was made was written: nothing is lost without a trace"
}

audit_line() { # WHAT PATTERN
	local line
	line=$(grep -Em 1 -- "$2" monitor.out) || die "no line like /$2/ for '$1' in the audit log:"$'\n'"$(<monitor.out)"
	checks=$((checks + 1))
	printf '  %s%s:%s\n    %s\n' "$bold" "$1" "$plain" "$line"
}
