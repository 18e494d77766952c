package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// liveLine is the last line of the output, written anew in place. Where the
// output is no terminal it is an ordinary line now and then.
type liveLine struct {
	out io.Writer
	// width is the terminal's that out is, 0 where it is none.
	width   func() int
	shown   bool
	printed time.Time
}

func newLiveLine(a *app) *liveLine { return &liveLine{out: a.out, width: a.width} }

// show replaces the line. Without a terminal it writes a line if the last one
// is older than every; 0 is never.
func (l *liveLine) show(line string, every time.Duration) {
	if width := l.width(); width > 0 {
		fmt.Fprintf(l.out, "\r\x1b[K%s", text.Snip(line, width-1, "…"))
		l.shown = true
		return
	}
	if every > 0 && time.Since(l.printed) >= every {
		l.printed = time.Now()
		fmt.Fprintln(l.out, line)
	}
}

// clear removes the line, so that others may be written.
func (l *liveLine) clear() {
	if l.shown {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.shown = false
	}
}

// say writes a line above the live one.
func (s *sandbox) say(format string, args ...any) {
	s.live.clear()
	fmt.Fprintf(s.app.out, format+"\n", args...)
}

func (s *sandbox) heading(title string) { s.say("\n%s", s.app.paint().as(bold, title)) }

// facts writes names and what is to say of them.
func (s *sandbox) facts(facts [][2]string) {
	widest := 0
	for _, f := range facts {
		widest = max(widest, text.StringWidth(f[0]))
	}
	for _, f := range facts {
		s.say("%s%s", text.Pad(f[0], widest+len(gap), ' '), f[1])
	}
}

// devTable is a table whose numbers stand below each other. It has the look of
// the lists.
type devTable struct {
	s      *sandbox
	writer table.Writer
	right  []table.ColumnConfig
}

// devCell is a text in a colour.
type devCell struct {
	text string
	tint tint
}

func cell(content string) devCell { return devCell{content, noTint} }

func number(n int) devCell { return devCell{grouped(n), noTint} }

// table begins a table. A title that ends in > is that of a column of numbers.
func (s *sandbox) table(titles ...string) *devTable {
	t := &devTable{s: s, writer: table.NewWriter()}
	t.writer.SetStyle(listStyle())
	header := make(table.Row, len(titles))
	for i, title := range titles {
		title, number := strings.CutSuffix(title, ">")
		header[i] = s.app.paint().as(faint, strings.ToUpper(title))
		if number {
			t.right = append(t.right, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	t.writer.AppendHeader(header)
	t.writer.SetColumnConfigs(t.right)
	return t
}

func (t *devTable) add(cells ...devCell) {
	row := make(table.Row, len(cells))
	for i, c := range cells {
		row[i] = t.s.app.paint().as(c.tint, c.text)
	}
	t.writer.AppendRow(row)
}

func (t *devTable) write() {
	for line := range strings.Lines(t.writer.Render() + "\n") {
		t.s.say("%s", strings.TrimRight(line, " \n"))
	}
}

// grouped writes 12,345.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// seconds writes a duration as people time things: 3.2 s, 12 ms.
func seconds(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	default:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
}

// bar is a progress bar of 24 characters.
func bar(done, all int) string {
	const width = 24
	full := width
	if done < all {
		full = done * width / all
	}
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}
