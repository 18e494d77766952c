package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// moduleFolder is where the README is: tests run in their package's folder.
var moduleFolder = filepath.Join("..", "..")

// readmeBlock is a fenced block of the README. The comment before it says who
// runs it: <!-- run: auditor rows -->.
type readmeBlock struct {
	line      int
	lang, run string
	text      string
}

// name is for messages.
func (b *readmeBlock) name() string {
	return fmt.Sprintf("README.md:%d (%s, %q)", b.line, b.lang, b.run)
}

func readReadme(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(moduleFolder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

var readmeMarker = regexp.MustCompile(`^<!-- run: (.+) -->$`)

// readmeBlocks gives the fenced blocks, and the text without them.
func readmeBlocks(t *testing.T, readme string) (blocks []*readmeBlock, prose string) {
	t.Helper()
	var open *readmeBlock
	var rest strings.Builder
	marker := ""
	number := 0
	for line := range strings.Lines(readme) {
		number++
		trimmed := strings.TrimSpace(line)
		lang, fence := strings.CutPrefix(trimmed, "```")
		switch {
		case open != nil && fence:
			blocks = append(blocks, open)
			open = nil
		case open != nil:
			open.text += line
		case fence:
			open = &readmeBlock{line: number, lang: lang, run: marker}
			marker = ""
		default:
			if marker != "" {
				t.Errorf("README.md:%d: the marker before it stands before no block", number)
			}
			marker = ""
			if match := readmeMarker.FindStringSubmatch(trimmed); match != nil {
				marker = match[1]
				continue
			}
			rest.WriteString(line)
		}
	}
	if open != nil {
		t.Fatalf("%s has no end", open.name())
	}
	return blocks, rest.String()
}
