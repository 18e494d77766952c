package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

var (
	readmeCode = regexp.MustCompile("`([^`\n]+)`")
	readmeFlag = regexp.MustCompile(`^(--[a-z][a-z-]+)`)
)

// TestReadmeCommandLines: every command line in the README is one that the
// program takes, every flag one that it has, every make target there.
func TestReadmeCommandLines(t *testing.T) {
	t.Parallel()
	blocks, prose := readmeBlocks(t, readReadme(t))
	_, receivers := readmeBlocks(t, readReceivers(t))
	prose += receivers
	var lines []string
	for _, b := range blocks {
		if b.lang == "sh" {
			lines = append(lines, strings.Split(b.text, "\n")...)
		}
	}
	root := newApp().root()
	flags := map[string]bool{}
	eachCommand(root, func(cmd *cobra.Command) {
		cmd.InheritedFlags() // merges them in
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = true })
	})
	makefile, err := os.ReadFile(filepath.Join(moduleFolder, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range readmeCode.FindAllStringSubmatch(prose, -1) {
		code := match[1]
		if strings.HasPrefix(code, "outrider ") {
			lines = append(lines, code)
		}
		if flag := readmeFlag.FindString(code); flag != "" && !flags[flag] {
			t.Errorf("README.md: no command has the flag %s", flag)
		}
		if target, ok := strings.CutPrefix(code, "make "); ok && !bytes.Contains(makefile, []byte("\n"+target+":")) {
			t.Errorf("README.md: the Makefile has no target %s", target)
		}
	}
	checked := 0
	for _, line := range lines {
		words := shellWords(line)
		if len(words) == 0 || words[0] != "outrider" {
			continue
		}
		checked++
		if err := parses(words[1:]); err != nil {
			t.Errorf("README.md: %s: %v", strings.TrimSpace(line), err)
		}
	}
	if checked < 15 {
		t.Errorf("%d command lines were checked: where are the others?", checked)
	}
	if parses([]string{"no-such-command"}) == nil || parses([]string{"webhook", "ad"}) == nil ||
		parses([]string{"serve", "--no-such-flag"}) == nil || parses([]string{"webhook", "add", "--account", "one"}) == nil {
		t.Error("a command line that cannot be used passes")
	}
}

func eachCommand(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, child := range cmd.Commands() {
		eachCommand(child, do)
	}
}

// parses tells whether the program has the command and takes its flags.
func parses(args []string) error {
	cmd, rest, err := newApp().root().Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if cmd.HasAvailableSubCommands() && cmd.Flags().NArg() > 0 {
		return fmt.Errorf("%s has no command %s", cmd.CommandPath(), cmd.Flags().Arg(0))
	}
	var problems []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if v, ok := f.Value.(judged); ok {
			problems = append(problems, v.wrong())
		}
	})
	return errors.Join(problems...)
}

var (
	readmeTestName = regexp.MustCompile("`((?:Test|Fuzz|Example|Benchmark)[A-Z]\\w*)`")
	readmeVariable = regexp.MustCompile(`OUTRIDER_[A-Z_]+`)
	readmeLink     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	readmeHeading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notInAnAnchor  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// TestReadmeNamesTests: each promise is shown by tests that exist.
func TestReadmeNamesTests(t *testing.T) {
	t.Parallel()
	tests, err := declaredTests(os.DirFS(moduleFolder))
	if err != nil {
		t.Fatal(err)
	}
	promises := 0
	for line := range strings.Lines(readReadme(t)) {
		named := readmeTestName.FindAllStringSubmatch(line, -1)
		for _, name := range named {
			if !tests[name[1]] {
				t.Errorf("README.md names %s, which no test file declares", name[1])
			}
		}
		if strings.HasPrefix(line, "| P") {
			promises++
			if len(named) == 0 {
				t.Errorf("README.md: no test shows %.40s…", line)
			}
		}
	}
	if promises != 9 {
		t.Errorf("README.md has %d promises, want 9", promises)
	}
}

// declaredTests are the test functions of all packages below root.
func declaredTests(root fs.FS) (map[string]bool, error) {
	names := map[string]bool{}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || name == "bin"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil {
				names[f.Name.Name] = true
			}
		}
		return nil
	})
	return names, err
}

// TestReadmeLinks: every link inside the README and receivers.md leads
// somewhere.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	checkLinks(t, filepath.Join(moduleFolder, "README.md"), readReadme(t))
	checkLinks(t, "receivers.md", readReceivers(t))
}

func checkLinks(t *testing.T, page, text string) {
	t.Helper()
	_, prose := readmeBlocks(t, text)
	anchors := map[string]bool{}
	for _, heading := range readmeHeading.FindAllStringSubmatch(prose, -1) {
		// GitHub's rule: lower case, no punctuation, dashes for spaces.
		anchors["#"+strings.ReplaceAll(notInAnAnchor.ReplaceAllString(strings.ToLower(heading[1]), ""), " ", "-")] = true
	}
	links := readmeLink.FindAllStringSubmatch(prose, -1)
	if len(links) == 0 {
		t.Fatalf("%s has no link", page)
	}
	for _, link := range links {
		switch target := link[1]; {
		case strings.HasPrefix(target, "https://"):
		case strings.HasPrefix(target, "#"):
			if !anchors[target] {
				t.Errorf("%s: no heading is %s", page, target)
			}
		default:
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), filepath.FromSlash(target))); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

// TestReadmeSettings: every setting is in the README's table, every variable in
// the README is a setting, and the example of a file is one.
func TestReadmeSettings(t *testing.T) {
	t.Parallel()
	readme := readReadme(t)
	blocks, _ := readmeBlocks(t, readme)
	known := map[string]bool{configVariable: true, secretVariable: true, chatwootTokenVariable: true, chatwootDatabaseVariable: true}
	for _, s := range settings {
		known[s.variable()] = true
		if row := "| `" + s.key + "` | `--" + s.flag() + "` | `" + s.variable() + "` |"; !strings.Contains(readme, row) {
			t.Errorf("README.md has no row %s", row)
		}
	}
	for _, name := range []string{"`--" + configFlag + "`", "`" + configVariable + "`", "`" + defaultListen + "`"} {
		if !strings.Contains(readme, name) {
			t.Errorf("README.md does not name %s", name)
		}
	}
	finder, err := os.ReadFile(filepath.Join(moduleFolder, "adapters", "devpg", "find.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range readmeVariable.FindAllString(readme, -1) {
		// The private server has a variable of its own, which is no setting.
		if !known[name] && !bytes.Contains(finder, []byte(`"`+name+`"`)) {
			t.Errorf("README.md names %s, which nothing reads", name)
		}
	}
	files := 0
	for _, b := range blocks {
		if b.run != "config" {
			continue
		}
		files++
		values, problems := parseFile(b.name(), []byte(b.text))
		if len(problems) > 0 || len(values) != len(settings) {
			t.Errorf("%s has %d of %d settings: %v", b.name(), len(values), len(settings), problems)
		}
		for _, s := range settings {
			if err := s.set(&config{}, values[s.key].text); err != nil {
				t.Errorf("%s: %s: %v", b.name(), s.key, err)
			}
		}
	}
	if files != 1 {
		t.Errorf("README.md has %d files of settings, want 1", files)
	}
}

// TestReadmeNumbers: the defaults in the README are those of the code.
func TestReadmeNumbers(t *testing.T) {
	t.Parallel()
	readme := readReadme(t)
	var delays []string
	for _, d := range domain.DefaultRetryPolicy.Delays {
		delays = append(delays, inWords(d))
	}
	texts := []string{
		"a chat system that commits " + grouped(demoEvents) + " events,",
		"| timeout of an attempt, response included | " + inWords(domain.DefaultTimeout) + " ",
		fmt.Sprintf("| retries after (`--retries`) | %s, each ±%.0f %%;", strings.Join(delays, ", "), 100*domain.DefaultRetryPolicy.Spread),
		"schedule's wait, up to " + inWords(domain.DefaultRetryPolicy.RetryAfterCap),
		fmt.Sprintf("| attempts at once (`--max-concurrency`) | %d,", domain.DefaultMaxConcurrency),
		fmt.Sprintf("| no answer, or 500 and above, %d times in a row |", domain.DefaultBreakerPolicy.Failures),
		fmt.Sprintf("and so on up to %d s, ±%.0f %%.", int(domain.DefaultBreakerPolicy.Last.Seconds()), 100*domain.DefaultBreakerPolicy.Spread),
		"| nothing but failure | for " + inWords(relay.DefaultDisableAfter) + ":",
		fmt.Sprintf("%v to %s are accepted, and 0 for no limit", domain.MinRateLimit, grouped(domain.MaxRateLimit)),
		"--only-disabled-for \"" + domain.DisabledFailing(relay.DefaultDisableAfter) + "\"",
		"(`--order-hold`) | " + inWords(domain.DefaultOrderHold) + ",",
		"its deadline of " + inWords(domain.Deadline("message_created")) + " passes (" + inWords(domain.Deadline("conversation_typing_on")) + " for typing events)",
		"(`--deadline`) | " + inWords(domain.DefaultDeadline) + ", counted from the routing; " + inWords(domain.Deadline("conversation_typing_on")) + " at most for typing events, " + inWords(domain.Deadline(domain.EventWebhookTest)) + " for tests",
		fmt.Sprintf("A relay uses %d at most: a pool of %d,", relayConnections+1, relayConnections),
		fmt.Sprintf("an ordering key over %d bytes", domain.MaxOrderingKey),
	}
	for _, event := range domain.DefaultSubscriptions {
		texts = append(texts, "`"+event+"`")
	}
	if domain.DefaultRetryPolicy.MaxAttempts() != 12 {
		t.Error("README.md says that the twelfth failure makes a delivery dead")
	}
	for _, text := range texts {
		if !strings.Contains(readme, text) {
			t.Errorf("README.md does not say %q", text)
		}
	}
}

// inWords is "30 s", "2 min", "5 h" or "7 days".
func inWords(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	default:
		return fmt.Sprintf("%d s", d/time.Second)
	}
}
