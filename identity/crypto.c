/* SPDX-License-Identifier: Apache-2.0 */
#include "crypto.h"

#include <errno.h>
#include <limits.h>
#include <openssl/conf.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PROVIDERS_MAX 2

struct crypto {
	OSSL_LIB_CTX *library;
	OSSL_PROVIDER *providers[PROVIDERS_MAX];
	OSSL_LIB_CTX *former; /* what crypto_use() replaced, or NULL */
};

static void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

void crypto_use(struct crypto *crypto)
{
	OSSL_LIB_CTX *former = OSSL_LIB_CTX_set0_default(crypto->library);

	if (crypto->former == NULL)
		crypto->former = former;
}

void crypto_freep(struct crypto **cryptop)
{
	struct crypto *crypto = *cryptop;

	if (crypto == NULL)
		return;
	if (crypto->former != NULL)
		OSSL_LIB_CTX_set0_default(crypto->former);
	for (size_t i = 0; i < PROVIDERS_MAX; i++) {
		if (crypto->providers[i] != NULL)
			OSSL_PROVIDER_unload(crypto->providers[i]);
	}
	OSSL_LIB_CTX_free(crypto->library);
	free(crypto);
	*cryptop = NULL;
}

/* The sentence, and what OpenSSL says of the cause. Returns 1. */
static __attribute__((format(printf, 3, 4))) int refuse(char *why, size_t size, const char *format, ...)
{
	const char *data = "", *reason;
	unsigned long error;
	int flags = 0, used;
	va_list args;

	va_start(args, format);
	used = vsnprintf(why, size, format, args);
	va_end(args);
	/* The first error is the cause, and those behind it what came of that. */
	error = ERR_peek_error_data(&data, &flags);
	reason = error != 0 ? ERR_reason_error_string(error) : NULL;
	if (used >= 0 && (size_t)used < size && error != 0)
		snprintf(why + used, size - (size_t)used, " (%s%s%s)", reason != NULL ? reason : "no reason given",
			 flags & ERR_TXT_STRING && data[0] != '\0' ? ": " : "",
			 flags & ERR_TXT_STRING && data != NULL ? data : "");
	ERR_clear_error();
	return 1;
}

static int crypto_new(struct crypto **cryptop)
{
	struct crypto *crypto = calloc(1, sizeof(*crypto));

	ERR_clear_error();
	if (crypto == NULL)
		return -ENOMEM;
	crypto->library = OSSL_LIB_CTX_new();
	if (crypto->library == NULL) {
		free(crypto);
		return -ENOMEM;
	}
	*cryptop = crypto;
	return 0;
}

int crypto_provider_new(struct crypto **cryptop, const char *provider, const char *properties, char *why,
			size_t why_size)
{
	__attribute__((cleanup(crypto_freep))) struct crypto *crypto = NULL;
	int r = crypto_new(&crypto);

	if (r < 0)
		return r;
	crypto->providers[0] = OSSL_PROVIDER_load(crypto->library, provider);
	if (crypto->providers[0] == NULL)
		return refuse(why, why_size, "OpenSSL's provider \"%s\" cannot be loaded", provider);
	if (EVP_set_default_properties(crypto->library, properties) != 1)
		return refuse(why, why_size, "OpenSSL does not take the properties \"%s\"", properties);
	*cryptop = crypto;
	crypto = NULL;
	return 0;
}

/*
 * What `openssl fipsinstall` writes is one section, to be included from elsewhere. The system's own configuration is not
 * used: it may activate other providers, and in a context of ours there are to be none.
 */
static int fips_configure(struct crypto *crypto, const char *path, char *why, size_t why_size)
{
	__attribute__((cleanup(closep))) int fd = memfd_create("bulkhead-fips", MFD_CLOEXEC);
	char text[PATH_MAX + 200], name[40];
	int len = snprintf(text, sizeof(text),
			   "config_diagnostics = 1\nopenssl_conf = bulkhead_init\n.include = %s\n[bulkhead_init]\n"
			   "providers = bulkhead_providers\n[bulkhead_providers]\nfips = fips_sect\n",
			   path);

	if (fd < 0)
		return -errno;
	if (access(path, R_OK) < 0)
		return refuse(why, why_size,
			      "fips: the configuration of OpenSSL's FIPS module, %s, cannot be read: %s; `openssl "
			      "fipsinstall -module %s/fips.so -out %s` makes it where the module is installed",
			      path, strerror(errno), OPENSSL_info(OPENSSL_INFO_MODULES_DIR), path);
	if (len < 0 || (size_t)len >= sizeof(text) || strchr(path, '\n') != NULL || strchr(path, '$') != NULL)
		return refuse(why, why_size, "fips: %.200s is no name of a file that OpenSSL can include", path);
	if (write(fd, text, (size_t)len) != len)
		return -EIO;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	if (OSSL_LIB_CTX_load_config(crypto->library, name) != 1)
		return refuse(why, why_size, "fips: OpenSSL's FIPS module does not start as configured by %s", path);
	return 0;
}

static int fips_load(struct crypto *crypto, const char *config, char *why, size_t why_size)
{
	char usual[PATH_MAX];
	int r = 0;

	snprintf(usual, sizeof(usual), "%s/fipsmodule.cnf", OPENSSL_info(OPENSSL_INFO_CONFIG_DIR));
	if (config == NULL && access(usual, F_OK) == 0)
		config = usual;
	if (config != NULL)
		r = fips_configure(crypto, config, why, why_size);
	if (r != 0)
		return r;
	crypto->providers[0] = OSSL_PROVIDER_load(crypto->library, "fips");
	if (crypto->providers[0] == NULL)
		return refuse(
			why, why_size,
			"fips: OpenSSL's FIPS module cannot be loaded; it belongs in %s (or where OPENSSL_MODULES "
			"says) as fips.so%s%s%s",
			OPENSSL_info(OPENSSL_INFO_MODULES_DIR), config == NULL ? ", and its configuration is " : "",
			config == NULL ? usual : "",
			config == NULL ? ", which is missing; `openssl fipsinstall` writes it" : "");
	if (OSSL_PROVIDER_self_test(crypto->providers[0]) != 1)
		return refuse(why, why_size, "fips: the self-test of OpenSSL's FIPS module failed");
	/* Encodings only; it has no cryptography. */
	crypto->providers[1] = OSSL_PROVIDER_load(crypto->library, "base");
	if (crypto->providers[1] == NULL)
		return refuse(why, why_size, "fips: OpenSSL's base provider cannot be loaded");
	if (EVP_default_properties_enable_fips(crypto->library, 1) != 1)
		return refuse(why, why_size, "fips: OpenSSL does not restrict itself to approved algorithms");
	return 0;
}

/* What no identity can be verified without. Others, as Ed25519, are missed by those only who use them. */
static int fips_check(struct crypto *crypto, char *why, size_t why_size)
{
	static const char *const digests[] = {"SHA2-256", "SHA2-384", "SHA2-512"};
	static const char *const signatures[] = {"ECDSA", "RSA"};
	uint8_t byte;

	for (size_t i = 0; i < sizeof(digests) / sizeof(digests[0]); i++) {
		EVP_MD *digest = EVP_MD_fetch(crypto->library, digests[i], NULL);

		if (digest == NULL)
			return refuse(why, why_size, "fips: OpenSSL's FIPS module has no %s", digests[i]);
		EVP_MD_free(digest);
	}
	for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
		EVP_SIGNATURE *signature = EVP_SIGNATURE_fetch(crypto->library, signatures[i], NULL);

		if (signature == NULL)
			return refuse(why, why_size, "fips: OpenSSL's FIPS module has no %s", signatures[i]);
		EVP_SIGNATURE_free(signature);
	}
	if (RAND_bytes_ex(crypto->library, &byte, 1, 0) != 1)
		return refuse(why, why_size, "fips: OpenSSL's FIPS module gives no random numbers");
	return 0;
}

int crypto_fips_new(struct crypto **cryptop, const char *config, char *why, size_t why_size)
{
	__attribute__((cleanup(crypto_freep))) struct crypto *crypto = NULL;
	int r = crypto_new(&crypto);

	if (r == 0)
		r = fips_load(crypto, config, why, why_size);
	if (r == 0)
		r = fips_check(crypto, why, why_size);
	if (r != 0)
		return r;
	*cryptop = crypto;
	crypto = NULL;
	return 0;
}

/*
 * OpenSSL 3.0's module calls Edwards curves approved, which FIPS 186-4, that it was validated by, does not know; from 3.1 on
 * it says what is so.
 */
static bool approved_by_mistake(const EVP_PKEY *key)
{
	int id = EVP_PKEY_get_base_id(key);
	char *version = NULL;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_VERSION, &version, 0),
		OSSL_PARAM_construct_end(),
	};

	if (id != EVP_PKEY_ED25519 && id != EVP_PKEY_ED448)
		return false;
	return OSSL_PROVIDER_get_params(EVP_PKEY_get0_provider(key), params) != 1 || version == NULL ||
	       strncmp(version, "3.0.", 4) == 0;
}

/* An elliptic curve is named by the parameter of the algorithm. */
static void key_name(X509 *certificate, char *name, size_t size)
{
	ASN1_OBJECT *algorithm = NULL;
	const ASN1_OBJECT *named;
	const void *value = NULL;
	X509_ALGOR *whole = NULL;
	int type = V_ASN1_UNDEF;

	X509_PUBKEY_get0_param(&algorithm, NULL, NULL, &whole, X509_get_X509_PUBKEY(certificate));
	if (whole != NULL)
		X509_ALGOR_get0(NULL, &type, &value, whole);
	named = type == V_ASN1_OBJECT ? value : algorithm;
	if (named == NULL || OBJ_obj2txt(name, (int)size, named, 0) <= 0)
		snprintf(name, size, "of an unknown kind");
}

const char *crypto_lacks_key(X509 *certificate, char *name, size_t size)
{
	const EVP_PKEY *key;

	if (!EVP_default_properties_is_fips_enabled(NULL))
		return NULL;
	key = X509_get0_pubkey(certificate);
	if (key != NULL && !approved_by_mistake(key))
		return NULL;
	ERR_clear_error();
	key_name(certificate, name, size);
	return name;
}
