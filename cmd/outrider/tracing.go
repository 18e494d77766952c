package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// tracingAsked tells whether the standard variables of OpenTelemetry ask for
// traces, and what is wrong with them: the exporter itself would fall back to an
// address that nobody named.
func tracingAsked(env func(string) string) (asked bool, problems []string) {
	if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") || env("OTEL_TRACES_EXPORTER") == "none" {
		return false, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		text := env(name)
		if text == "" {
			continue
		}
		asked = true
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			problems = append(problems, name+" is not a URL; write it like http://127.0.0.1:4318")
		}
	}
	if !asked {
		return false, nil
	}
	if exporter := env("OTEL_TRACES_EXPORTER"); exporter != "" && exporter != "otlp" {
		problems = append(problems, fmt.Sprintf("OTEL_TRACES_EXPORTER is %q; traces go out as otlp, or, with none, not at all", exporter))
	}
	protocol := env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = env("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	if !slices.Contains([]string{"", "http/protobuf"}, protocol) {
		problems = append(problems, fmt.Sprintf("the OTLP protocol is %q; Outrider speaks http/protobuf, which collectors take on port 4318", protocol))
	}
	return true, problems
}
