package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/pflag"

	"github.com/outrider-relay/outrider/domain/audit"
)

// The formats of what lists.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatCSV   = "csv"
)

// listFormat adds --format to a command that lists.
func listFormat(flags *pflag.FlagSet, dest *string) {
	flagOf(flags, dest, "format", "FORMAT", formatTable, "table, json (one object a line) or csv", oneOf(formatTable, formatJSON, formatCSV))
}

// thingFormat adds --format to a command that shows one thing.
func thingFormat(flags *pflag.FlagSet, dest *string) {
	flagOf(flags, dest, "format", "FORMAT", formatTable, "table, or json (one object)", oneOf(formatTable, formatJSON))
}

// column is one column of a list: a member of the JSON object, a field of the
// CSV record, and, if shown, a column of the table.
type column[T any] struct {
	name string
	// value gives nil, or what JSON has a form for.
	value func(*T) any
	// shown is the column's title in the table, empty for not in it. A
	// flexible one may be cut to fit the terminal.
	shown    string
	flexible bool
	// alone leaves it out of a list's table, which has no room for it.
	alone bool
	// tint colours a cell.
	tint func(text string) tint
}

// orNil gives nil instead of a zero value, for what is NULL then.
func orNil[V comparable](v V) any {
	var zero V
	if v == zero {
		return nil
	}
	return v
}

// pointed is the value, or nil for none.
func pointed[V any](p *V) any {
	if p == nil {
		return nil
	}
	return *p
}

// orZero is the value, or the zero one for none.
func orZero[V any](p *V) V {
	if p == nil {
		var zero V
		return zero
	}
	return *p
}

// orNever is orNil for times, whose zero value has many faces.
func orNever(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// writeList writes records in a format. The columns are the same in each.
func writeList[T any](a *app, format string, columns []column[T], records []T) error {
	switch format {
	case formatJSON:
		for i := range records {
			if err := writeObject(a.out, columns, &records[i]); err != nil {
				return err
			}
		}
		return nil
	case formatCSV:
		return writeCSV(a.out, columns, records)
	default:
		return writeTable(a, columns, records)
	}
}

// writeObject writes one record as a JSON object on one line, its members in
// the order of the columns.
func writeObject[T any](out io.Writer, columns []column[T], record *T) error {
	var line bytes.Buffer
	for i := range columns {
		line.WriteByte(",{"[btoi(i == 0)])
		if err := encode(&line, columns[i].name); err != nil {
			return err
		}
		line.WriteByte(':')
		if err := encode(&line, columns[i].value(record)); err != nil {
			return fmt.Errorf("%s: %w", columns[i].name, err)
		}
	}
	line.WriteString("}\n")
	_, err := out.Write(line.Bytes())
	return err
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// encode appends JSON without HTML's escapes: & in a URL stays readable.
func encode(line *bytes.Buffer, v any) error {
	encoder := json.NewEncoder(line)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return err
	}
	line.Truncate(line.Len() - 1) // the encoder's line break
	return nil
}

func writeCSV[T any](out io.Writer, columns []column[T], records []T) error {
	w := csv.NewWriter(out)
	fields := make([]string, len(columns))
	for i := range columns {
		fields[i] = columns[i].name
	}
	err := w.Write(fields)
	for i := range records {
		for j := range columns {
			fields[j] = plain(columns[j].value(&records[i]), time.RFC3339Nano)
		}
		if err == nil {
			err = w.Write(fields)
		}
	}
	w.Flush()
	if err == nil {
		err = w.Error()
	}
	return err
}

// plain is a value as text; nil is empty.
func plain(v any, layout string) string {
	switch v := v.(type) {
	case nil:
		return ""
	case time.Time:
		return v.Format(layout)
	case []string:
		return strings.Join(v, ",")
	case []int:
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(v), " ", ","), "[]")
	case json.RawMessage:
		return string(v)
	default:
		return fmt.Sprint(v)
	}
}

// Times that people read are local. A table has no room for the year.
const (
	tableTime = "01-02 15:04:05.000"
	thingTime = "2006-01-02 15:04:05 -07:00"
)

// gap is between columns.
const gap = "  "

// leastCell is what a flexible column keeps on a narrow terminal.
const leastCell = 12

func writeTable[T any](a *app, columns []column[T], records []T) error {
	if len(records) == 0 {
		_, err := fmt.Fprintln(a.out, "Nothing found.")
		return err
	}
	var shown []column[T]
	var widths []int
	cells := make([][]string, len(records))
	for i := range columns {
		if columns[i].shown == "" || columns[i].alone {
			continue
		}
		widest := 0
		texts := make([]string, len(records))
		for r := range records {
			v := columns[i].value(&records[r])
			if t, ok := v.(time.Time); ok {
				v = t.Local()
			}
			texts[r] = printable(plain(v, tableTime))
			widest = max(widest, text.StringWidth(texts[r]))
		}
		if widest == 0 {
			continue // nothing in it
		}
		for r := range records {
			cells[r] = append(cells[r], texts[r])
		}
		shown = append(shown, columns[i])
		widths = append(widths, max(widest, text.StringWidth(columns[i].shown)))
	}
	fit(widths, func(i int) bool { return shown[i].flexible }, a.width())
	p := a.paint()
	t := table.NewWriter()
	t.SetStyle(listStyle())
	header := make(table.Row, len(shown))
	for i := range header {
		header[i] = p.as(faint, strings.ToUpper(shown[i].shown))
	}
	t.AppendHeader(header)
	for _, line := range cells {
		row := make(table.Row, len(line))
		for i, cell := range line {
			cell = text.Snip(cell, widths[i], "…")
			if shown[i].tint != nil {
				cell = p.as(shown[i].tint(cell), cell)
			}
			row[i] = cell
		}
		t.AppendRow(row)
	}
	for line := range strings.Lines(t.Render() + "\n") {
		if _, err := fmt.Fprintln(a.out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// listStyle has no lines: a list is read downwards, and copied from.
func listStyle() table.Style {
	style := table.StyleDefault
	style.Box.PaddingLeft, style.Box.PaddingRight = "", gap
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatDefault
	return style
}

// fit narrows the flexible columns until the table fits the terminal, always
// the widest first. 0 is no terminal.
func fit(widths []int, flexible func(int) bool, width int) {
	if width == 0 {
		return
	}
	total := len(gap) * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > width; total-- {
		widest := -1
		for i, w := range widths {
			if flexible(i) && w > leastCell && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return // the terminal wraps the rest
		}
		widths[widest]--
	}
}

// writeThing writes the shown columns of one record below each other.
func writeThing[T any](a *app, columns []column[T], record *T) {
	widest := 0
	for i := range columns {
		widest = max(widest, len(columns[i].shown))
	}
	p := a.paint()
	for i := range columns {
		c := columns[i]
		v := c.value(record)
		if c.shown == "" || v == nil {
			continue
		}
		if t, ok := v.(time.Time); ok {
			v = t.Local()
		}
		cell := printable(plain(v, thingTime))
		if list, ok := v.([]string); ok {
			cell = printable(strings.Join(list, ", "))
		}
		if c.tint != nil {
			cell = p.as(c.tint(cell), cell)
		}
		fmt.Fprintf(a.out, "  %s  %s\n", p.as(faint, fmt.Sprintf("%-*s", widest, c.shown)), cell)
	}
}

// printable makes text safe for a terminal.
func printable(s string) string { return audit.Printable(s) }

// tint is a colour with a meaning.
type tint int

const (
	noTint  tint = iota
	bold         // what is talked about
	faint        // what is beside the point
	good         // went well
	bad          // went wrong
	waiting      // will go on
	unknown      // nobody knows
)

// paint writes colours, or does not.
type paint bool

// paint is on where out is a terminal whose user did not say no
// (https://no-color.org).
func (a *app) paint() paint {
	return paint(a.width() > 0 && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb")
}

func (p paint) as(t tint, s string) string {
	code := [...]string{"", "1", "2", "32", "31", "33", "35"}[t]
	if !p || code == "" || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
