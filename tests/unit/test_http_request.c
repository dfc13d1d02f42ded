/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/http_request.h"

#define GET "GET /metrics HTTP/1.1\r\nHost: localhost:9\r\n"

static struct http_request request;

static int answer(const char *text, bool local)
{
	return http_request_read(text, strlen(text), "/metrics", local, &request);
}

static void a_scrape_is_answered(void **state)
{
	(void)state;
	assert_int_equal(answer(GET "\r\n", true), 200);
	assert_false(request.plain);
	assert_int_equal(answer("GET /metrics HTTP/1.0\r\n\r\n", true), 200);
	assert_int_equal(answer(GET "User-Agent: x\r\nX-Scrape:\t 1 \r\ncontent-length: 0\r\n\r\n", true), 200);
}

static void no_head_is_answered_before_it_ends(void **state)
{
	static const char text[] = GET "Accept: */*\r\n\r\n";

	(void)state;
	for (size_t len = 0; len < sizeof(text) - 1; len++)
		assert_int_equal(http_request_read(text, len, "/metrics", true, &request), HTTP_MORE);
	assert_int_equal(http_request_read(text, sizeof(text) - 1, "/metrics", true, &request), 200);
}

static void the_format_is_open_metrics_unless_only_the_old_one_is_asked_for(void **state)
{
	(void)state;
	assert_int_equal(answer(GET "Accept: text/plain\r\n\r\n", true), 200);
	assert_true(request.plain);
	assert_int_equal(
		answer(GET "accept: Application/OpenMetrics-Text;version=1.0.0,text/plain;q=0.5\r\n\r\n", true), 200);
	assert_false(request.plain);
	assert_int_equal(answer(GET "Accept: */*\r\n\r\n", true), 200);
	assert_false(request.plain);
}

static void anything_else_is_refused_by_name(void **state)
{
	(void)state;
	assert_int_equal(answer("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", true), 404);
	assert_int_equal(answer("GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", true), 404);
	assert_int_equal(answer("POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", true), 405);
	assert_int_equal(answer("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", true), 405);
	assert_int_equal(answer("GET /metrics HTTP/2.0\r\nHost: localhost\r\n\r\n", true), 505);
}

static void what_can_be_understood_in_two_ways_is_refused(void **state)
{
	static const char *const texts[] = {
		"\r\n",
		"GET\r\n",
		"GET /metrics\r\n",
		" GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET  /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /metrics HTTP/1.1 \r\nHost: localhost\r\n\r\n",
		"GET /metrics HTTP/1.1 x\r\nHost: localhost\r\n\r\n",
		"G@T /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /met\trics HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /metrics http/1.1\r\nHost: localhost\r\n\r\n",
		"GET /metrics HTTP/1.1\nHost: localhost\n\n",
		"GET /metrics HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
		"GET /metrics HTTP/1.1\r\n\r\n", /* 1.1 without Host */
		GET "Host: localhost\r\n\r\n",
		GET "Content-Length: 1\r\n\r\nx",
		GET "Transfer-Encoding: chunked\r\n\r\n",
		GET "no colon\r\n\r\n",
		GET " folded: x\r\n\r\n",
		GET "Name : x\r\n\r\n",
		GET ": x\r\n\r\n",
		GET "A: x\ry\r\n\r\n",
		GET "A: \001\r\n\r\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (answer(texts[i], true) != 400)
			fail_msg("not refused: %s", texts[i]);
}

static void a_name_of_another_host_is_refused_on_a_port_and_not_on_a_socket(void **state)
{
	static const char *const own[] = {"localhost", "LOCALHOST:9470", "127.0.0.1:9470", "127.1.2.3", "[::1]:9470"};
	static const char *const other[] = {"evil.example",
					    "127.0.0.1.evil.example",
					    "localhost.evil.example:80",
					    "[::2]",
					    "[::1]x",
					    "10.0.0.1",
					    "127.0.0",
					    ""};
	char text[200];

	(void)state;
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
		snprintf(text, sizeof(text), "GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n", own[i]);
		assert_int_equal(answer(text, true), 200);
	}
	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
		snprintf(text, sizeof(text), "GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n", other[i]);
		assert_int_equal(answer(text, true), 421);
		assert_int_equal(answer(text, false), 200);
	}
}

static void a_head_that_is_too_long_is_refused(void **state)
{
	char text[HTTP_MAX_REQUEST];

	(void)state;
	memset(text, 'a', sizeof(text));
	assert_int_equal(http_request_read(text, sizeof(text) - 1, "/metrics", true, &request), HTTP_MORE);
	assert_int_equal(http_request_read(text, sizeof(text), "/metrics", true, &request), 431);
	memcpy(text, GET, strlen(GET));
	assert_int_equal(http_request_read(text, sizeof(text), "/metrics", true, &request), 431);
}

static void no_bytes_crash_the_reader(void **state)
{
	static const char text[] = GET "Accept: text/plain\r\n\r\n";
	char bytes[sizeof(text)];

	(void)state;
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		for (int byte = 0; byte < 256; byte++) {
			/* Exactly as long as it is, so that a sanitizer sees a read beyond it. */
			memcpy(bytes, text, sizeof(text));
			bytes[i] = (char)byte;
			assert_in_range(http_request_read(bytes, sizeof(text) - 1, "/metrics", true, &request), 0, 505);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_scrape_is_answered),
		cmocka_unit_test(no_head_is_answered_before_it_ends),
		cmocka_unit_test(the_format_is_open_metrics_unless_only_the_old_one_is_asked_for),
		cmocka_unit_test(anything_else_is_refused_by_name),
		cmocka_unit_test(what_can_be_understood_in_two_ways_is_refused),
		cmocka_unit_test(a_name_of_another_host_is_refused_on_a_port_and_not_on_a_socket),
		cmocka_unit_test(a_head_that_is_too_long_is_refused),
		cmocka_unit_test(no_bytes_crash_the_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
