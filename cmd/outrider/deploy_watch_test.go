package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"gopkg.in/yaml.v3"
)

// The words of PromQL that the dashboard and the alerts use. A parser of it
// would be Prometheus itself, with all that it depends on: too much for a check
// of names.
var (
	promFunctions    = []string{"rate", "increase", "histogram_quantile", "absent", "label_values", "max_over_time"}
	promAggregations = []string{"sum", "max", "min"}
	promWords        = []string{"by", "on", "and", "offset"}
	promToken        = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[a-zA-Z_:][a-zA-Z0-9_:]*|[0-9]+(?:\.[0-9]+)?[smhdw]?|\$[a-zA-Z_]+|=~|!=|!~|>=|<=|==|[-+*/(){}\[\],=<>]`)
)

// scraped are the labels that Prometheus itself adds.
var scraped = []string{"job", "instance"}

// checkExpression finds metrics, labels and values of labels that a relay does
// not have.
func checkExpression(expression string, families map[string]*dto.MetricFamily) (used []string, err error) {
	tokens := promToken.FindAllString(expression, -1)
	if rest := strings.Join(strings.Fields(promToken.ReplaceAllString(expression, "")), ""); rest != "" {
		return nil, fmt.Errorf("what is %q", rest)
	}
	var open []string
	var labels map[string][]string // of the metric whose braces are open
	all := map[string]bool{}       // labels of all metrics of the expression
	var grouped []string
	at := func(i int) string {
		if i < 0 || i >= len(tokens) {
			return ""
		}
		return tokens[i]
	}
	pairs := map[string]string{")": "(", "}": "{", "]": "["}
	for i, token := range tokens {
		inside := ""
		if len(open) > 0 {
			inside = open[len(open)-1]
		}
		switch {
		case slices.Contains([]string{"(", "{", "["}, token):
			if token == "(" && slices.Contains([]string{"by", "on"}, at(i-1)) {
				token = "by("
			}
			open = append(open, token)
		case pairs[token] != "":
			if !strings.HasSuffix(inside, pairs[token]) || inside == "" {
				return nil, fmt.Errorf("%q closes nothing", token)
			}
			open = open[:len(open)-1]
		case inside == "by(" && token != ",":
			grouped = append(grouped, token)
		case inside == "{" && slices.Contains([]string{"=", "=~", "!=", "!~"}, at(i+1)):
			values, known := labels[token]
			if !known && !slices.Contains(scraped, token) {
				return nil, fmt.Errorf("it has no label %s", token)
			}
			for value := range strings.SplitSeq(strings.Trim(at(i+2), `"`), "|") {
				if known && !slices.Contains(values, value) {
					return nil, fmt.Errorf("no %s is %s", token, value)
				}
			}
		case inside == "{" || inside == "[" || !regexp.MustCompile(`^[a-zA-Z_:]`).MatchString(token):
		case slices.Contains(promWords, token):
		case slices.Contains(promFunctions, token) || slices.Contains(promAggregations, token):
			if next := at(i + 1); next != "(" && next != "by" {
				return nil, fmt.Errorf("%s is not called", token)
			}
		case at(i-1) == "," && at(i-3) == "(" && at(i-4) == "label_values":
		default:
			family, histogram := families[token], false
			if family == nil {
				if name, ok := strings.CutSuffix(token, "_bucket"); ok {
					family, histogram = families[name], true
				}
			}
			if family == nil || histogram != (family.GetType() == dto.MetricType_HISTOGRAM) {
				return nil, fmt.Errorf("there is no metric %s", token)
			}
			counter := family.GetType() == dto.MetricType_COUNTER || histogram
			if rated := strings.Contains(expression, "rate(") || strings.Contains(expression, "increase("); counter != rated {
				return nil, fmt.Errorf("%s is a %s", token, family.GetType())
			}
			used = append(used, family.GetName())
			labels = metricLabels(family)
			for label := range labels {
				all[label] = true
			}
			if histogram {
				all["le"] = true
			}
		}
	}
	if len(open) > 0 {
		return nil, fmt.Errorf("%q is not closed", open[0])
	}
	if len(used) == 0 {
		return nil, fmt.Errorf("it asks for nothing")
	}
	for _, label := range grouped {
		if !all[label] && !slices.Contains(scraped, label) {
			return nil, fmt.Errorf("nothing has the label %s", label)
		}
	}
	return used, nil
}

func TestCheckExpression(t *testing.T) {
	t.Parallel()
	families := allFamilies(t)
	for expression, ok := range map[string]bool{
		`max(outrider_lag_seconds) > 60`: true,
		`sum by (outcome) (rate(outrider_attempts_total{job=~"$job",outcome="failed"}[$__rate_interval])) > 0`: true,
		`histogram_quantile(0.5, sum by (le) (rate(outrider_arrival_seconds_bucket[10m])))`:                    true,
		`outrider_relay_sends == 0 and on (instance) outrider_relay_state{state="active"} == 1`:                true,
		`label_values(outrider_build_info, job)`:                                                               true,
		`sum(outrider_lag_rows) - max_over_time(sum(outrider_lag_rows)[10m:1m] offset 15m) > 10`:               true,
		`max(outrider_lag_minutes)`:                                   false,
		`max_over_time(sum(outrider_lag_minutes)[10m:1m] offset 15m)`: false,
		`max(outrider_lag_seconds`:                                    false,
		`max(outrider_lag_seconds))`:                                  false,
		`maximum(outrider_lag_seconds)`:                               false,
		`rate(outrider_attempts_total{outcome="fails"}[5m])`:          false,
		`rate(outrider_attempts_total{result="failed"}[5m])`:          false,
		`rate(outrider_attempts_total{outcome=~"failed|late"}[5m])`:   false,
		`sum by (result) (rate(outrider_attempts_total[5m]))`:         false,
		`outrider_attempts_total > 5`:                                 false, // a counter
		`rate(outrider_lag_rows[5m])`:                                 false, // a gauge
		`rate(outrider_arrival_seconds[5m])`:                          false,
		`rate(outrider_lag_rows_bucket[5m])`:                          false,
		`5 > 4`:                                                       false,
		`max(outrider_lag_seconds) § 3`:                               false,
	} {
		if used, err := checkExpression(expression, families); (err == nil) != ok || ok && len(used) == 0 {
			t.Errorf("%s: %v, want ok: %v", expression, err, ok)
		}
	}
}

// TestAlerts: each rule asks for what there is, and the README says what to do.
func TestAlerts(t *testing.T) {
	t.Parallel()
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(deployFile(t, "prometheus/alerts.yml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	families, readme := allFamilies(t), readReadme(t)
	rules, asked := map[string]bool{}, map[string]bool{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if rules[rule.Alert] {
				t.Errorf("%s is there twice", rule.Alert)
			}
			rules[rule.Alert] = true
			used, err := checkExpression(rule.Expr, families)
			if err != nil {
				t.Errorf("%s: %s: %v", rule.Alert, rule.Expr, err)
			}
			for _, name := range used {
				asked[name] = true
			}
			if _, err := time.ParseDuration(rule.For); rule.For != "" && err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, rule.Labels["severity"]) || rule.Annotations["summary"] == "" {
				t.Errorf("%s: labels %v, annotations %v", rule.Alert, rule.Labels, rule.Annotations)
			}
			if row := regexp.MustCompile("(?m)^\\| `" + rule.Alert + "` \\| " + rule.Labels["severity"] + " \\| [^|]+ \\|$"); !row.MatchString(readme) {
				t.Errorf("README.md has no row for %s, %s, that says what to do", rule.Alert, rule.Labels["severity"])
			}
		}
	}
	if !asked["outrider_breakers"] {
		t.Error("nobody is told that many receivers are down")
	}
	if len(rules) < 10 {
		t.Errorf("%d rules: where are the others?", len(rules))
	}
	for _, match := range regexp.MustCompile("(?m)^\\| `(Outrider[A-Za-z]+)` \\|").FindAllStringSubmatch(readme, -1) {
		if !rules[match[1]] {
			t.Errorf("README.md has the alert %s, which is no rule", match[1])
		}
	}
}

// TestDashboard: each panel asks for what there is, and nothing is left out.
func TestDashboard(t *testing.T) {
	t.Parallel()
	type target struct{ Expr, LegendFormat string }
	var dashboard struct {
		Title  string
		Panels []struct {
			ID                       int
			Type, Title, Description string
			GridPos                  struct{ X, Y, W, H int }
			Targets                  []target
		}
		Templating struct {
			List []struct {
				Name  string
				Query json.RawMessage
			}
		}
	}
	if err := json.Unmarshal([]byte(deployFile(t, "grafana/outrider.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	families := allFamilies(t)
	shown := map[string]bool{"outrider_build_info": true, "outrider_relay_sends": true, "outrider_database_up": true, "outrider_partitions_ahead": true, "outrider_net_rows": true} // alerts have them, or tell them too
	ids := map[int]bool{}
	for _, panel := range dashboard.Panels {
		if ids[panel.ID] || panel.Title == "" || panel.GridPos.X+panel.GridPos.W > 24 {
			t.Errorf("panel %d %q at %v", panel.ID, panel.Title, panel.GridPos)
		}
		ids[panel.ID] = true
		if (panel.Type == "row") != (len(panel.Targets) == 0) {
			t.Errorf("panel %q, a %s, has %d queries", panel.Title, panel.Type, len(panel.Targets))
		}
		for _, target := range panel.Targets {
			used, err := checkExpression(target.Expr, families)
			if err != nil {
				t.Errorf("panel %q: %s: %v", panel.Title, target.Expr, err)
				continue
			}
			for _, name := range used {
				shown[name] = true
			}
			for _, match := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if _, has := metricLabels(families[used[0]])[match[1]]; !has && !slices.Contains(scraped, match[1]) {
					t.Errorf("panel %q: the legend has %s", panel.Title, match[1])
				}
			}
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "outrider_") && !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
	variables := 0
	for _, variable := range dashboard.Templating.List {
		var query struct{ Query string }
		if variable.Name != "job" {
			continue
		}
		variables++
		if err := json.Unmarshal(variable.Query, &query); err != nil {
			t.Fatal(err)
		}
		if _, err := checkExpression(query.Query, families); err != nil {
			t.Errorf("%s: %v", query.Query, err)
		}
	}
	if variables != 1 {
		t.Errorf("%d variables are the job", variables)
	}
}
