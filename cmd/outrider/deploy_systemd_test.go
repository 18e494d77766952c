package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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
	unit := readUnit(t, deployFile(t, "outrider.service"))
	one := func(name string) string {
		if len(unit[name]) != 1 {
			t.Errorf("%s is there %d times", name, len(unit[name]))
			return ""
		}
		return unit[name][0]
	}
	words := strings.Fields(one("ExecStart"))
	if filepath.Base(words[0]) != "outrider" || parses(words[1:]) != nil || words[1] != "serve" {
		t.Errorf("it runs %v", words)
	}
	wait, err := time.ParseDuration(one("TimeoutStopSec"))
	if err != nil {
		t.Error(err)
	}
	checkStop(t, "outrider.service", wait)
	for name, want := range map[string]string{
		"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateDevices": "yes",
		"MemoryDenyWriteExecute": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
		"Restart": "on-failure", "RestartPreventExitStatus": "2", "EnvironmentFile": "/etc/outrider/outrider.env",
	} {
		if got := one(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if exitUsage != 2 {
		t.Errorf("a setting that cannot be used is exit code %d, and the unit takes 2 for it", exitUsage)
	}
}

// TestSystemdEnvironment: each line of the file of settings is one, also those
// that are commented out.
func TestSystemdEnvironment(t *testing.T) {
	t.Parallel()
	var set []string
	for line := range strings.Lines(deployFile(t, "outrider.env")) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "#"), "=")
		if !ok || !strings.HasPrefix(name, "OUTRIDER_") {
			continue // prose
		}
		checkSetting(t, "outrider.env", name, value)
		set = append(set, name)
	}
	for _, s := range settings {
		if !slices.Contains(set, s.variable()) {
			t.Errorf("outrider.env does not name %s", s.variable())
		}
	}
}

// TestSystemdAccepts asks systemd itself, where there is one, about the unit
// with the program's place in this test.
func TestSystemdAccepts(t *testing.T) {
	t.Parallel()
	text := deployFile(t, "outrider.service")
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	here := strings.Replace(text, "/usr/local/bin/outrider", program, 1)
	if here == text {
		t.Fatal("the unit does not name /usr/local/bin/outrider")
	}
	unit := filepath.Join(t.TempDir(), "outrider.service")
	if err := os.WriteFile(unit, []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return // not a system of systemd's: the other tests have read the unit
	}
	for _, args := range [][]string{
		{"verify", unit},
		// 1.2 of 10: what is left is the network, which it is there for.
		{"security", "--no-pager", "--offline=true", "--threshold=15", unit},
	} {
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		// What it does not know it only names.
		if err != nil || args[0] == "verify" && strings.Contains(string(out), filepath.Base(unit)) {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}
