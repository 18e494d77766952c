package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"

	"github.com/outrider-relay/outrider/adapters/postgres"
)

// config is what commands are told beside their own flags.
type config struct {
	databaseURL string
	// allow are networks in which webhooks may live although they are not
	// public.
	allow []netip.Prefix
	// listen is where serve answers /healthz, /readyz and /metrics.
	listen string
	// pprofListen is where serve answers with profiles, "" for nowhere.
	pprofListen string
	// relayName tells relays apart in the audit.
	relayName string
	// maxInFlight is how many attempts may be under way at once, 0 for the
	// default.
	maxInFlight int
	// disableAfter is how long a webhook may do nothing but fail, 0 for the
	// default, below 0 for ever.
	disableAfter time.Duration
	// How long content is kept.
	retainPayloads, retainResponses, retainLog keep
	// web is what outrider web is told.
	web webConfig
}

// setting is one value of the configuration. Flag, variable and key of the
// file have one name: --allow-cidrs, OUTRIDER_ALLOW_CIDRS, allow_cidrs. The
// flag counts before the variable, the variable before the file.
type setting struct {
	key string
	// short is the flag's name where a command has no other of its kind: serve
	// and web both listen, and may be given one file.
	short    string
	usage    string
	required bool
	// yes says that the flag alone, without a value, is true.
	yes bool
	set func(c *config, text string) error
}

var (
	databaseURL = &setting{
		key: "database_url", usage: "the database, like postgres://user:password@host:5432/chat", required: true,
		set: func(c *config, text string) error {
			db, err := postgres.Open(text, "") // connects to nothing
			if err != nil {
				return err
			}
			c.databaseURL = text
			return db.Close()
		},
	}
	allowCIDRs = &setting{
		key: "allow_cidrs", usage: "networks that webhooks may live in although they are not public, comma-separated",
		set: func(c *config, text string) (err error) {
			c.allow, err = parsePrefixes(text)
			return err
		},
	}
)

// settings are all there are: the file may have any of them, whatever the
// command.
var settings = []*setting{databaseURL, allowCIDRs, listenOn, relayNamed, maxInFlight, disableAfter, pprofOn, retainPayloads, retainResponses, retainLog, webListenOn, publicURL, maskSecrets, trustedProxies}

func (s *setting) flag() string {
	if s.short != "" {
		return s.short
	}
	return strings.ReplaceAll(s.key, "_", "-")
}

func (s *setting) variable() string { return "OUTRIDER_" + strings.ToUpper(s.key) }

// addTo adds the setting's flag to a command.
func (s *setting) addTo(flags *pflag.FlagSet) {
	flags.String(s.flag(), "", s.usage+" ["+s.variable()+"]")
	flag := flags.Lookup(s.flag())
	flag.Annotations = map[string][]string{settingAnnotation: {s.key}}
	if s.yes {
		flag.NoOptDefVal = "true"
	}
}

// settingAnnotation says which setting a flag is of.
const settingAnnotation = "outrider/setting"

// given is the setting's flag where the command line has it, else nil.
func (s *setting) given(flags *pflag.FlagSet) *pflag.Flag {
	flag := flags.Lookup(s.flag())
	if flag == nil || !flag.Changed || !slices.Contains(flag.Annotations[settingAnnotation], s.key) {
		return nil
	}
	return flag
}

// parsePrefixes reads networks, comma-separated.
func parsePrefixes(text string) (prefixes []netip.Prefix, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		prefix, err := parsePrefix(part)
		if err != nil {
			return nil, err
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

// parsePrefix reads a network. One address stands for itself; bits behind the
// prefix are a mistake, not ignored.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("%q is not a network; write it like 10.0.0.0/8", text)
	}
	if prefix != prefix.Masked() {
		return prefix, fmt.Errorf("%q has address bits behind its prefix; did you mean %s?", text, prefix.Masked())
	}
	return prefix, nil
}

// databaseOptional annotates a command that does without a database.
const databaseOptional = "outrider/database-optional"

const (
	configFlag     = "config"
	configVariable = "OUTRIDER_CONFIG"
)

// configure reads the settings of a command and lists all that is wrong with
// them.
func (a *app) configure(cmd *cobra.Command) (config, []string) {
	var c config
	file, problems := a.readFile(cmd)
	for _, s := range settings {
		text, source := "", ""
		flag := s.given(cmd.Flags())
		switch fromFile, inFile := file[s.key]; {
		case flag != nil:
			text, source = flag.Value.String(), "--"+s.flag()
		case a.env(s.variable()) != "":
			text, source = a.env(s.variable()), s.variable()
		case inFile:
			text, source = fromFile.text, fmt.Sprintf("%s, line %d: %s", fromFile.file, fromFile.line, s.key)
		}
		switch {
		case text != "":
			if err := s.set(&c, text); err != nil {
				problems = append(problems, source+": "+err.Error())
			}
		case s.required && source != "":
			problems = append(problems, source+": is empty")
		case s.required && cmd.Annotations[databaseOptional] == "":
			problems = append(problems, fmt.Sprintf("%s is missing: set %s, or give --%s", s.key, s.variable(), s.flag()))
		}
	}
	return c, problems
}

// fileValue is a value of the file with its place.
type fileValue struct {
	text string
	file string
	line int
}

// readFile reads the file of settings, where one is named.
func (a *app) readFile(cmd *cobra.Command) (map[string]fileValue, []string) {
	name, source := a.env(configVariable), configVariable
	if flag := cmd.Flags().Lookup(configFlag); flag != nil && flag.Changed {
		name, source = flag.Value.String(), "--"+configFlag
	}
	if name == "" {
		return nil, nil
	}
	content, err := os.ReadFile(name) //nolint:gosec // the file that the user names
	if err != nil {
		return nil, []string{source + ": " + err.Error()}
	}
	return parseFile(name, content)
}

// parseFile reads settings: a YAML mapping of names to values, or to lists of
// values. It is read as nodes, so that each problem has its line.
func parseFile(name string, content []byte) (map[string]fileValue, []string) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		// The driver's text may quote the content, and with it a password.
		return nil, []string{fmt.Sprintf("%s: %v", name, yamlProblem(err))}
	}
	if len(document.Content) == 0 {
		return nil, nil // empty
	}
	mapping := document.Content[0]
	if mapping.Kind != yaml.MappingNode {
		return nil, []string{fmt.Sprintf("%s, line %d: settings are lines like \"database_url: postgres://…\"", name, mapping.Line)}
	}
	values := map[string]fileValue{}
	var problems []string
	problem := func(node *yaml.Node, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s, line %d: ", name, node.Line)+fmt.Sprintf(format, args...))
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		text, ok := nodeText(value)
		_, again := values[key.Value]
		switch {
		case !slices.ContainsFunc(settings, func(s *setting) bool { return s.key == key.Value }):
			problem(key, "unknown setting %q; there are: %s", key.Value, settingNames())
		case again:
			problem(key, "%s is set twice", key.Value)
		case !ok:
			problem(value, "%s: is not a value or a list of values", key.Value)
		default:
			values[key.Value] = fileValue{text, name, value.Line}
		}
	}
	return values, problems
}

// yamlProblem keeps the line of a YAML error.
func yamlProblem(err error) error {
	text := err.Error()
	if _, ok := errors.AsType[*yaml.TypeError](err); ok {
		text = "is not a mapping of settings"
	}
	return errors.New(strings.TrimPrefix(text, "yaml: "))
}

// nodeText gives a scalar's text, or a list's, comma-separated.
func nodeText(node *yaml.Node) (string, bool) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		return "", true
	case node.Kind == yaml.ScalarNode:
		return node.Value, true
	case node.Kind == yaml.SequenceNode:
		var parts []string
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				return "", false
			}
			parts = append(parts, item.Value)
		}
		return strings.Join(parts, ","), true
	}
	return "", false
}

func settingNames() string {
	var names []string
	for _, s := range settings {
		names = append(names, s.key)
	}
	return strings.Join(names, ", ")
}
