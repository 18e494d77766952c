package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestWorkflow: what runs for each change is made of the Makefile's targets,
// covers every version of PostgreSQL that there is, and has no right but to
// read.
func TestWorkflow(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join(moduleFolder, ".github", "workflows", "ci.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var workflow struct {
		Permissions map[string]string
		Jobs        map[string]struct {
			Permissions map[string]string
			Strategy    struct{ Matrix map[string][]string }
			Steps       []struct{ Uses, Run string }
		}
	}
	if err := yaml.Unmarshal(content, &workflow); err != nil {
		t.Fatal(err)
	}
	if len(workflow.Permissions) != 1 || workflow.Permissions["contents"] != "read" {
		t.Errorf("it may do %v", workflow.Permissions)
	}
	makefile, err := os.ReadFile(filepath.Join(moduleFolder, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	expression := regexp.MustCompile(`\$\{\{ matrix\.(\w+) \}\}`)
	var targets []string
	for name, job := range workflow.Jobs {
		if job.Permissions != nil {
			t.Errorf("%s has rights of its own: %v", name, job.Permissions)
		}
		for _, step := range job.Steps {
			if step.Uses != "" && !strings.HasPrefix(step.Uses, "actions/") {
				t.Errorf("%s uses %s", name, step.Uses)
			}
			lines := []string{step.Run}
			if match := expression.FindStringSubmatch(step.Run); match != nil {
				lines = nil
				for _, value := range job.Strategy.Matrix[match[1]] {
					lines = append(lines, strings.Replace(step.Run, match[0], value, 1))
				}
			}
			for _, line := range lines {
				if words := strings.Fields(line); len(words) > 1 && words[0] == "make" {
					targets = append(targets, words[1])
				} else if line != "" {
					t.Errorf("%s runs %q", name, line)
				}
			}
		}
	}
	for _, target := range append(targets, "test", "lint", "race", "test-matrix") {
		if !strings.Contains(string(makefile), "\n"+target+":") || !slices.Contains(targets, target) {
			t.Errorf("%s is not run, or no target", target)
		}
	}
	versions := regexp.MustCompile(`(?m)^VERSIONS \?= (.+)$`).FindStringSubmatch(string(makefile))
	if len(versions) != 2 || versions[1] != strings.Join(workflow.Jobs["postgresql"].Strategy.Matrix["version"], " ") {
		t.Fatalf("the Makefile has the versions %v, the workflow %v", versions, workflow.Jobs["postgresql"].Strategy.Matrix["version"])
	}
	// Each version has a server of just one release.
	servers := regexp.MustCompile(`(?m)^POSTGRES_SERVERS := (.+)$`).FindStringSubmatch(string(makefile))
	if len(servers) != 2 {
		t.Fatal("the Makefile has no servers")
	}
	var majors []string
	for _, server := range strings.Fields(servers[1]) {
		major, _, _ := strings.Cut(server, ".")
		majors = append(majors, major)
	}
	if strings.Join(majors, " ") != versions[1] {
		t.Errorf("there are servers of %v", majors)
	}
}

// TestRaceLeavesOutWhatIsMeant: each name that make race leaves out is of tests
// that there are, all in one package, so that it takes none with it elsewhere.
func TestRaceLeavesOutWhatIsMeant(t *testing.T) {
	t.Parallel()
	recipe, err := exec.CommandContext(t.Context(), "make", "-C", moduleFolder, "--dry-run", "race").Output()
	if err != nil {
		t.Fatal(err)
	}
	skipped := regexp.MustCompile(`go test -race .* -skip '\^Test\((.+)\)' \./\.{3}`).FindSubmatch(recipe)
	if skipped == nil {
		t.Fatalf("make race does not leave out what it is to:\n%s", recipe)
	}
	tests := map[string][]string{} // names by folder
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	module := os.DirFS(moduleFolder)
	err = fs.WalkDir(module, ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := fs.ReadFile(module, path)
		for _, match := range declared.FindAllSubmatch(source, -1) {
			tests[filepath.Dir(path)] = append(tests[filepath.Dir(path)], string(match[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range alternatives(string(skipped[1])) {
		pattern := regexp.MustCompile("^Test(" + name + ")")
		var in []string
		for folder, names := range tests {
			if slices.ContainsFunc(names, pattern.MatchString) {
				in = append(in, folder)
			}
		}
		if len(in) != 1 {
			t.Errorf("%s leaves out tests of %d packages: %q", name, len(in), in)
		}
	}
}

// alternatives takes a pattern apart at each | that is in no parentheses.
func alternatives(pattern string) []string {
	found, depth := []string{""}, 0
	for _, r := range pattern {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		if r == '|' && depth == 0 {
			found = append(found, "")
			continue
		}
		found[len(found)-1] += string(r)
	}
	return found
}
