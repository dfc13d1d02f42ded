# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# pki.sh - a trial certificate authority, by the openssl command line. In production SPIRE or another SPIFFE issuer has this
# part; Bulkhead needs its trust bundle only.

TRUST_DOMAIN=prod.example

# What `openssl ca` wants to know. Unlike `openssl x509` it can set the end of an SVID to the second.
pki_config() { # DIRECTORY
	cat <<-END
		[ca]
		default_ca = this
		[this]
		database = $1/index.txt
		new_certs_dir = $1
		certificate = $1/ca.pem
		private_key = $1/ca.key
		rand_serial = yes
		default_md = sha256
		policy = any
		unique_subject = no
		[any]
		organizationName = optional
		commonName = optional
		[req]
		distinguished_name = none
		[none]
		[authority]
		basicConstraints = critical,CA:TRUE
		keyUsage = critical,keyCertSign,cRLSign
		subjectKeyIdentifier = hash
		subjectAltName = URI:spiffe://$TRUST_DOMAIN
		[leaf]
		basicConstraints = critical,CA:FALSE
		keyUsage = critical,digitalSignature
		extendedKeyUsage = serverAuth,clientAuth
		subjectAltName = URI:\${ENV::SPIFFE_ID}
	END
}

pki_failed() { # LOG
	cat "$1" >&2
	die "openssl cannot make the certificates"
}

ca_make() { # DIRECTORY NAME
	mkdir "$1"
	: >"$1/index.txt"
	pki_config "$1" >"$1/ca.cnf"
	SPIFFE_ID='' openssl req -x509 -config "$1/ca.cnf" -extensions authority -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
		-nodes -subj "/O=$2" -days 1 -keyout "$1/ca.key" -out "$1/ca.pem" 2>"$1/ca.log" ||
		pki_failed "$1/ca.log"
}

svid_make() { # CA-DIRECTORY FILE SERVICE-ACCOUNT SECONDS
	local id=spiffe://$TRUST_DOMAIN/ns/shop/sa/$3 end
	end=$(date -u -d "@$(($(date +%s) + $4))" +%Y%m%d%H%M%SZ)
	SPIFFE_ID=$id openssl req -new -config "$1/ca.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
		-subj "/O=shop/CN=$3" -keyout "$2.key" -out "$2.csr" 2>"$1/req.log" || pki_failed "$1/req.log"
	SPIFFE_ID=$id openssl ca -batch -notext -config "$1/ca.cnf" -extensions leaf -enddate "$end" \
		-in "$2.csr" -out "$2.pem" 2>"$1/sign.log" || pki_failed "$1/sign.log"
	rm "$2.csr"
}
