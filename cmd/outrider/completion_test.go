package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/outrider-relay/outrider/domain"
)

// completed gives the words that a shell would be offered at the end of a
// command line, and how the shell is to go on.
func completed(t *testing.T, line ...string) (words []string, directive string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(newCLI(t, "").ok(append([]string{cobra.ShellCompRequestCmd}, line...)...)), "\n")
	for _, word := range lines[:len(lines)-1] {
		word, _, _ = strings.Cut(word, "\t") // the text behind it says what it is
		words = append(words, word)
	}
	return words, lines[len(lines)-1]
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	const onlyThese, files, folders = ":4", ":0", ":16"
	for line, want := range map[string]struct {
		words     string
		directive string
	}{
		"audit deliveries --status |":      {"pending held succeeded dead cancelled expired", onlyThese},
		"audit attempts --format |":        {"table json csv", onlyThese},
		"audit attempts --outcome |":       {"started succeeded failed unknown", onlyThese},
		"audit changes --change |":         {"registered updated secret_rotated paused enabled disabled deleted breaker_opened breaker_closed secret_revealed", onlyThese},
		"audit export |":                   {"attempts changes deliveries events timeline", onlyThese},
		"audit export events --output |":   {"", files},
		"webhook show --format |":          {"table json", onlyThese},
		"webhook import --state |":         {"enabled paused disabled", onlyThese},
		"webhook add --account |":          {"", onlyThese},
		"webhook import |":                 {"", files},
		"verify-signature --secret-file |": {"", files},
		"serve --config |":                 {"", files},
		"dev --dir |":                      {"", folders},
		"serve |":                          {"", onlyThese},
		"webhook pa|":                      {"pause", onlyThese},
		"token create --role |":            {"viewer operator administrator", onlyThese},
		"replay |":                         {"cancel list pause plan resume run show", onlyThese},
		"serve --allow|":                   {"--allow-cidrs", onlyThese},
	} {
		words, directive := completed(t, strings.Split(strings.TrimSuffix(line, "|"), " ")...)
		if got := strings.Join(words, " "); got != want.words || directive != want.directive {
			t.Errorf("%s: %q and %s, want %q and %s", line, got, directive, want.words, want.directive)
		}
	}
}

// TestCompletionKnowsEveryChoice: a flag that refuses a word and names those
// there are has them completed, on whatever command it is.
func TestCompletionKnowsEveryChoice(t *testing.T) {
	t.Parallel()
	choices := 0
	eachCommand(newApp().root(), func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(flag *pflag.Flag) {
			complete, ok := cmd.GetFlagCompletionFunc(flag.Name)
			if !ok {
				if flag.Name != "help" && flag.Name != "version" && cmd.InheritedFlags().Lookup(flag.Name) == nil {
					t.Errorf("%s --%s: files are offered", cmd.CommandPath(), flag.Name)
				}
				return
			}
			v, ok := flag.Value.(judged)
			if !ok {
				return
			}
			_ = flag.Value.Set("no-such-word") // wrong says what is wrong
			err := v.wrong()
			if err == nil || !strings.Contains(err.Error(), "is none of") {
				return
			}
			choices++
			words, _ := complete(cmd, nil, "")
			if said := strings.Join(words, ", "); len(words) == 0 || !strings.HasSuffix(err.Error(), said) {
				t.Errorf("%s --%s: %q is completed, and %v", cmd.CommandPath(), flag.Name, said, err)
			}
		})
	})
	if choices < 8 {
		t.Errorf("%d flags take one of some words: where are the others?", choices)
	}
	if words, _ := completed(t, "webhook", "import", "--state", ""); words[0] != string(domain.WebhookEnabled) {
		t.Errorf("the first state is %s", words[0])
	}
}

// TestCompletionScripts: each shell that is here takes its script.
func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := newCLI(t, "").ok("completion", shell)
		if !strings.Contains(script, "outrider") || !strings.Contains(script, cobra.ShellCompRequestCmd) {
			t.Errorf("the script for %s asks for no completions", shell)
		}
		program, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		check := exec.CommandContext(t.Context(), program, "-n", "/dev/stdin")
		check.Stdin = strings.NewReader(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
}
