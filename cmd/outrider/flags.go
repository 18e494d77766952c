package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/outrider-relay/outrider/domain"
)

// value is a flag that is judged together with all others, not when it is met:
// so that one run names all that is wrong.
type value[T any] struct {
	name    string
	kind    string
	text    string
	parse   func(string) (T, error)
	dest    *T
	list    func(T) // a flag that may be given several times
	whole   bool    // its text is one value, commas and all
	problem error
}

// judged is any value[T].
type judged interface{ wrong() error }

// flagOf adds a flag. def is shown in the help and is the value where the flag
// is not given; empty for none.
func flagOf[T any](flags *pflag.FlagSet, dest *T, name, kind, def, usage string, parse func(string) (T, error)) {
	v := &value[T]{name: name, kind: kind, parse: parse, dest: dest, text: def}
	if def != "" {
		*dest, v.problem = parse(def)
	}
	flags.Var(v, name, usage)
}

// flagsOf adds a flag that may be given several times, or once with commas.
func flagsOf[T any](flags *pflag.FlagSet, dest *[]T, name, kind, usage string, parse func(string) (T, error)) {
	v := &value[T]{name: name, kind: kind, parse: parse, list: func(t T) { *dest = append(*dest, t) }}
	flags.Var(v, name, usage)
}

// linesOf adds a flag that may be given several times. Commas are part of its
// value.
func linesOf[T any](flags *pflag.FlagSet, dest *[]T, name, kind, usage string, parse func(string) (T, error)) {
	v := &value[T]{name: name, kind: kind, parse: parse, list: func(t T) { *dest = append(*dest, t) }, whole: true}
	flags.Var(v, name, usage)
}

// Set implements pflag.Value. It never fails: wrong says what is wrong.
func (v *value[T]) Set(text string) error {
	v.text = text
	parts := []string{text}
	switch {
	case v.list == nil:
		v.problem = nil
	case !v.whole:
		parts = strings.Split(text, ",")
	}
	for _, part := range parts {
		parsed, err := v.parse(strings.TrimSpace(part))
		switch {
		case err != nil:
			v.problem = errors.Join(v.problem, fmt.Errorf("--%s: %w", v.name, err))
		case v.list != nil:
			v.list(parsed)
		default:
			*v.dest = parsed
		}
	}
	return nil
}

// String implements pflag.Value: the default, for the help.
func (v *value[T]) String() string { return v.text }

// Type implements pflag.Value.
func (v *value[T]) Type() string { return v.kind }

func (v *value[T]) wrong() error { return v.problem }

// meantFlag ends the message about a flag that there is not, with those whose names
// are nearest to it. cobra does so for commands only.
func meantFlag(flags *pflag.FlagSet, err error) string {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || unknown.GetSpecifiedShortnames() != "" {
		return ""
	}
	name := strings.ToLower(unknown.GetSpecifiedName())
	least := min(mostTypos, len(name)-1) // what has no letter of it is not like it
	var like []string
	flags.VisitAll(func(flag *pflag.Flag) {
		away := typos(name, flag.Name)
		if flag.Hidden || away > least {
			return
		}
		if away < least {
			least, like = away, nil
		}
		like = append(like, "--"+flag.Name)
	})
	return didYouMean(like)
}

// typos is how many bytes have to be put in, left out or replaced to make one word
// of another: the distance of Levenshtein.
func typos(a, b string) int {
	row := make([]int, len(b)+1) // of the part of a so far, to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			here := before
			if a[i] != b[j] {
				here = 1 + min(before, row[j], row[j+1])
			}
			before, row[j+1] = row[j+1], here
		}
	}
	return row[len(b)]
}

// check is what is wrong with a command line, with its settings.
type check struct {
	cmd      *cobra.Command
	problems []string
}

// check reads the settings and lists what is wrong with them and with the
// flags. More is added by the command itself.
func (a *app) check(cmd *cobra.Command) (config, *check) {
	c := &check{cmd: cmd}
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		if v, ok := flag.Value.(judged); ok && v.wrong() != nil {
			c.problems = append(c.problems, strings.Split(v.wrong().Error(), "\n")...)
		}
	})
	conf, problems := a.configure(cmd)
	c.problems = append(c.problems, problems...)
	return conf, c
}

// add notes a problem.
func (c *check) add(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// given reports whether the command line has the flag.
func (c *check) given(flag string) bool { return c.cmd.Flags().Changed(flag) }

// need notes flags that must be given and are not.
func (c *check) need(flags ...string) {
	for _, flag := range flags {
		if !c.given(flag) {
			c.add("--%s is missing", flag)
		}
	}
}

// err gives what was noted.
func (c *check) err() error {
	if len(c.problems) == 0 {
		return nil
	}
	return usage(c.cmd, c.problems...)
}

// one gives the only argument; name says what it is.
func (c *check) one(args []string, name string) string {
	switch len(args) {
	case 0:
		c.add("%s is missing", name)
		return ""
	case 1:
	default:
		c.add("there are %d arguments; give one: %s", len(args), name)
	}
	return args[0]
}

// none notes arguments where there should be no.
func (c *check) none(args []string) {
	if len(args) > 0 {
		c.add("unexpected argument %q", args[0])
	}
}

// webhookID gives the only argument, a webhook's id.
func (c *check) webhookID(args []string) domain.WebhookID {
	text := c.one(args, "the webhook's ID")
	if text == "" {
		return 0
	}
	id, err := parseID[domain.WebhookID](text)
	if err != nil {
		c.add("the webhook's ID: %v", err)
	}
	return id
}

// eventID gives the only argument, an event's id.
func (c *check) eventID(args []string) uuid.UUID {
	text := c.one(args, "the event's ID")
	if text == "" {
		return uuid.Nil
	}
	id, err := parseUUID(text)
	if err != nil {
		c.add("the event's ID: %v", err)
	}
	return id
}

// parseID reads a number of 1 or more, as ids are.
func parseID[T ~int | ~int64](text string) (T, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is not a number of 1 or more", text)
	}
	return T(n), nil
}

// operatorAccount is how the command line calls the operator's account, whose
// number is domain.OperatorAccount.
const operatorAccount = "operator"

// parseAccount reads an account: a number of 1 or more, or the operator's.
func parseAccount(text string) (domain.AccountID, error) {
	if text == operatorAccount || text == strconv.FormatInt(int64(domain.OperatorAccount), 10) {
		return domain.OperatorAccount, nil
	}
	id, err := parseID[domain.AccountID](text)
	if err != nil {
		return 0, fmt.Errorf("%w, nor %q", err, operatorAccount)
	}
	return id, nil
}

func parseUUID(text string) (uuid.UUID, error) {
	id, err := uuid.Parse(text)
	if err != nil || id == uuid.Nil {
		return uuid.Nil, fmt.Errorf("%q is not a UUID", text)
	}
	return id, nil
}

// parseDuration reads a duration such as 90s, 24h or 7d.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration; write it like 30s, 2h or 7d", text)
	}
	return d, nil
}

// parseTime reads a time in RFC 3339, or a duration, which counts back from
// now.
func (a *app) parseTime(text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if d, err := parseDuration(text); err == nil {
		return a.now().Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time; write it like 2026-07-01T12:00:00Z, or 2h for two hours ago", text)
}

// oneOf reads one of some words.
func oneOf(words ...string) func(string) (string, error) {
	return func(text string) (string, error) {
		for _, word := range words {
			if text == word {
				return word, nil
			}
		}
		return "", &noneOf{text, words}
	}
}

// noneOf refuses a word. It has those there are, which completion asks it for.
type noneOf struct {
	text  string
	words []string
}

// Error names the words there are.
func (e *noneOf) Error() string {
	return fmt.Sprintf("%q is none of %s", e.text, strings.Join(e.words, ", "))
}

func anyText(text string) (string, error) { return text, nil }
