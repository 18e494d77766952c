package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// dockerLines gives the instructions of the Dockerfile: their name and rest.
func dockerLines(t *testing.T) [][2]string {
	t.Helper()
	var lines [][2]string
	for line := range strings.Lines(deployFile(t, "Dockerfile")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		lines = append(lines, [2]string{name, rest})
	}
	return lines
}

// TestDockerfileBuilds runs the Dockerfile's own command on what its context
// lets in. There is nothing of Docker's in the test.
func TestDockerfileBuilds(t *testing.T) {
	t.Parallel()
	context := dockerContext(t)
	command := ""
	for _, line := range dockerLines(t) {
		if line[0] == "RUN" && strings.Contains(line[1], "go build") {
			command = line[1]
		}
	}
	built := filepath.Join(t.TempDir(), "outrider")
	here := strings.Replace(command, "-o /outrider ", "-o "+built+" ", 1)
	if here == command {
		t.Fatalf("the command does not build /outrider: %s", command)
	}
	build := exec.CommandContext(t.Context(), "sh", "-ec", here)
	build.Dir = context
	build.Env = append(os.Environ(), "VERSION=v1.2.3-test", "TARGETOS="+runtime.GOOS, "TARGETARCH="+runtime.GOARCH)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", here, err, out)
	}
	out, err := exec.CommandContext(t.Context(), built, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "outrider v1.2.3-test ") {
		t.Errorf("outrider version says %q: %v", out, err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	file, err := elf.Open(built)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			t.Error("the program needs a dynamic linker, which the image does not have")
		}
	}
}

// dockerContext copies what Dockerfile.dockerignore lets in.
func dockerContext(t *testing.T) string {
	t.Helper()
	context := t.TempDir()
	lines := strings.Split(deployFile(t, "Dockerfile.dockerignore"), "\n")
	for _, line := range lines {
		name, let := strings.CutPrefix(line, "!")
		if !let {
			continue
		}
		from, to := filepath.Join(moduleFolder, name), filepath.Join(context, name)
		info, err := os.Stat(from)
		switch {
		case err != nil:
			t.Fatalf("Dockerfile.dockerignore: %v", err)
		case info.IsDir():
			err = os.CopyFS(to, os.DirFS(from))
		default:
			var content []byte
			if content, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, content, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return context
}

func TestDockerfileImage(t *testing.T) {
	t.Parallel()
	image := map[string][]string{}
	stage := 0
	for _, line := range dockerLines(t) {
		if line[0] == "FROM" {
			stage++
		}
		if stage == 2 {
			image[line[0]] = append(image[line[0]], line[1])
		}
	}
	for name, want := range map[string]string{
		"FROM": "scratch", "USER": "65532:65532", "EXPOSE": "7580", "ENV": "OUTRIDER_LISTEN=:7580",
		"ENTRYPOINT": `["/outrider"]`, "CMD": `["serve"]`,
		"COPY": "--from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/\n--from=build /outrider /outrider",
	} {
		if got := strings.Join(image[name], "\n"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(image) != 7 {
		t.Errorf("the image has more than is checked here: %v", image)
	}
	variable, value, _ := strings.Cut(strings.Join(image["ENV"], ""), "=")
	checkSetting(t, "Dockerfile", variable, value)
	// The Go that builds the image is the one that go.mod asks for.
	module, err := os.ReadFile(filepath.Join(moduleFolder, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(module))
	if len(version) != 2 || !strings.Contains(deployFile(t, "Dockerfile"), " golang:"+version[1]+" AS build\n") {
		t.Errorf("go.mod asks for Go %v, and the Dockerfile takes another", version)
	}
}
