package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/relay"
)

// readUnit reads the directives of a unit, by name, in their order.
func readUnit(t *testing.T, text string) map[string][]string {
	t.Helper()
	directives := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "[") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Errorf("outrider.service: %q is no directive", line)
		}
		directives[name] = append(directives[name], value)
	}
	return directives
}

func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	for command, least := range map[string]time.Duration{"serve": relay.DefaultGrace + stopMargin, "web": 2 * usualLimits.grace} {
		name := unitOf[command]
		unit := readUnit(t, deployFile(t, name))
		one := func(directive string) string {
			if len(unit[directive]) != 1 {
				t.Errorf("%s: %s is there %d times", name, directive, len(unit[directive]))
				return ""
			}
			return unit[directive][0]
		}
		words := strings.Fields(one("ExecStart"))
		if filepath.Base(words[0]) != "outrider" || parses(words[1:]) != nil || words[1] != command {
			t.Errorf("%s runs %v", name, words)
		}
		if wait, err := time.ParseDuration(one("TimeoutStopSec")); err != nil || wait < least {
			t.Errorf("%s: a stop is given %s, and may take %s: %v", name, wait, least, err)
		}
		for directive, want := range map[string]string{
			"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateDevices": "yes",
			"MemoryDenyWriteExecute": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
			"Restart": "on-failure", "RestartPreventExitStatus": "2", "EnvironmentFile": "/etc/outrider/" + strings.TrimSuffix(name, ".service") + ".env",
		} {
			if got := one(directive); got != want {
				t.Errorf("%s: %s is %q, want %q", name, directive, got, want)
			}
		}
	}
	if exitUsage != 2 {
		t.Errorf("a setting that cannot be used is exit code %d, and the units take 2 for it", exitUsage)
	}
}

// unitOf are the units by the command that each runs.
var unitOf = map[string]string{"serve": "outrider.service", "web": "outrider-web.service"}

// TestSystemdEnvironment: each line of the files of settings is one, also those
// that are commented out, and each command's file has all that it takes.
func TestSystemdEnvironment(t *testing.T) {
	t.Parallel()
	for command, unit := range unitOf {
		file := strings.TrimSuffix(unit, ".service") + ".env"
		var set []string
		for line := range strings.Lines(deployFile(t, file)) {
			name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "#"), "=")
			if !ok || !strings.HasPrefix(name, "OUTRIDER_") {
				continue // prose
			}
			checkSetting(t, file, name, value)
			set = append(set, name)
		}
		cmd, _, err := newApp().root().Find([]string{command})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range settings {
			flag := cmd.Flag(s.flag())
			takes := flag != nil && slices.Contains(flag.Annotations[settingAnnotation], s.key)
			if takes != slices.Contains(set, s.variable()) {
				t.Errorf("outrider %s takes %s: %t, and %s names it: %t", command, s.variable(), takes, file, !takes)
			}
		}
	}
}

// TestSystemdAccepts asks systemd itself, where there is one, about the units
// with the program's place in this test.
func TestSystemdAccepts(t *testing.T) {
	t.Parallel()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return // not a system of systemd's: the other tests have read the unit
	}
	var runs [][]string
	for _, name := range unitOf {
		text := deployFile(t, name)
		here := strings.Replace(text, "/usr/local/bin/outrider", program, 1)
		if here == text {
			t.Fatalf("%s does not name /usr/local/bin/outrider", name)
		}
		unit := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(unit, []byte(here), 0o600); err != nil {
			t.Fatal(err)
		}
		runs = append(runs, []string{"verify", unit},
			// 1.2 of 10: what is left is the network, which it is there for.
			[]string{"security", "--no-pager", "--offline=true", "--threshold=15", unit})
	}
	for _, args := range runs {
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		// What it does not know it only names.
		if err != nil || args[0] == "verify" && strings.Contains(string(out), filepath.Base(args[1])) {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}
