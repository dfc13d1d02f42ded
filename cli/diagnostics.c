/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/diagnostics.h"

static json_t *diagnostic_json(const struct policy_diagnostic *diagnostic)
{
	json_t *object = json_pack("{s:s, s:s, s:s}", "severity", policy_severity_name(diagnostic->severity), "file",
				   diagnostic->file, "text", diagnostic->text);

	if (diagnostic->line) {
		json_object_set_new(object, "line", json_integer(diagnostic->line));
		json_object_set_new(object, "column", json_integer(diagnostic->column));
	}
	if (diagnostic->code)
		json_object_set_new(object, "code", json_string(diagnostic->code));
	if (diagnostic->hint)
		json_object_set_new(object, "hint", json_string(diagnostic->hint));
	return object;
}

json_t *cli_diagnostics_json(const struct policy_diagnostics *diagnostics)
{
	const struct policy_diagnostic *diagnostic;
	json_t *list = json_array();

	for (size_t i = 0; (diagnostic = policy_diagnostics_get(diagnostics, i)); i++)
		json_array_append_new(list, diagnostic_json(diagnostic));
	return list;
}

void cli_diagnostics_set(json_t *result, const struct policy_diagnostics *diagnostics)
{
	json_object_set_new(result, "errors",
			    json_integer((json_int_t)policy_diagnostics_count(diagnostics, POLICY_ERROR)));
	json_object_set_new(result, "warnings",
			    json_integer((json_int_t)policy_diagnostics_count(diagnostics, POLICY_WARNING)));
	json_object_set_new(result, "diagnostics", cli_diagnostics_json(diagnostics));
}

int cli_diagnostics_fail(const struct cli *cli, const struct policy_diagnostics *diagnostics)
{
	json_t *result;

	if (!cli->json) {
		policy_diagnostics_print(diagnostics, stderr, cli->colour_err);
		return CLI_NO;
	}
	result = json_pack("{s:b}", "ok", 0);
	cli_diagnostics_set(result, diagnostics);
	cli_print_json(result);
	return CLI_NO;
}
