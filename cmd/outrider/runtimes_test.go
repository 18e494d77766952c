package main

import (
	"bytes"
	osexec "os/exec"
	"testing"
)

// runtimes are the languages of the examples, with a check that what the
// examples need is there; `make runtimes` has the same checks.
var runtimes = map[string][]string{
	"ruby":    {"-e", `require "openssl"`},
	"python3": {"-c", "import sqlite3"},
	"node":    {"--version"},
	"php":     {"-r", "exit(PHP_VERSION_ID < 80000 ? 1 : 0);"},
}

// runtimeOf finds the program of a language; one that is missing fails the test.
func runtimeOf(t *testing.T, name string) string {
	t.Helper()
	program, err := osexec.LookPath(name)
	if err == nil {
		err = osexec.CommandContext(t.Context(), program, runtimes[name]...).Run()
	}
	if err != nil {
		t.Fatalf("%s is missing or too old for the examples (%v); to install it: make runtimes", name, err)
	}
	return program
}

// script runs a script and gives what it prints.
func script(t *testing.T, name string, input []byte, env []string, args ...string) string {
	t.Helper()
	cmd := osexec.CommandContext(t.Context(), runtimeOf(t, name), args...)
	cmd.Env = append(cmd.Environ(), env...)
	cmd.Stdin = bytes.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, stderr.String())
	}
	return stdout.String()
}
