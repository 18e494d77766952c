package main

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain/audit"
)

// The waits between two looks. A look that took long is followed by a longer
// wait, so that following never takes more than a small share of a server.
const (
	followWait  = 500 * time.Millisecond
	followShare = 10
)

// followList writes what is new in a list until ctx ends.
func followList[T any](ctx context.Context, a *app, history *postgres.Audit, l listing[T], filter audit.Filter, format string) error {
	next, err := l.follow(history, ctx, filter)
	if err != nil {
		return orStopped(ctx, err)
	}
	write := followWriter(a, l, format)
	for {
		begun := time.Now()
		records, err := next(ctx)
		if err != nil {
			return orStopped(ctx, err)
		}
		if len(records) > 0 {
			if err := write(records); err != nil {
				return err
			}
			continue
		}
		select {
		case <-time.After(max(followWait, followShare*time.Since(begun))):
		case <-ctx.Done():
			return nil
		}
	}
}

// orStopped gives nil where somebody ended it: that is how following ends.
func orStopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// followWriter gives what writes new records: a line each, at once.
func followWriter[T any](a *app, l listing[T], format string) func([]T) error {
	switch {
	case format == formatTable && l.table != nil:
		return l.table
	case format == formatTable:
		return (&growingTable[T]{app: a, columns: l.columns}).write
	case format == formatCSV:
		header := false
		return func(records []T) error {
			var lines bytes.Buffer
			if err := writeCSV(&lines, l.columns, records); err != nil {
				return err
			}
			if header {
				lines.Next(bytes.IndexByte(lines.Bytes(), '\n') + 1)
			}
			header = true
			_, err := a.out.Write(lines.Bytes())
			return err
		}
	default:
		return func(records []T) error { return writeList(a, format, l.columns, records) }
	}
}

// growingTable is a table whose rows come one after the other: its columns are
// as wide as what came so far.
type growingTable[T any] struct {
	app     *app
	columns []column[T]
	widths  []int
}

func (t *growingTable[T]) write(records []T) error {
	var shown []column[T]
	for _, c := range t.columns {
		if c.shown != "" {
			shown = append(shown, c)
		}
	}
	var rows [][]string
	if t.widths == nil {
		t.widths = make([]int, len(shown))
		header := make([]string, len(shown))
		for i := range shown {
			header[i] = strings.ToUpper(shown[i].shown)
		}
		rows = append(rows, header)
	}
	heads := len(rows)
	for i := range records {
		row := make([]string, len(shown))
		for j := range shown {
			v := shown[j].value(&records[i])
			if at, ok := v.(time.Time); ok {
				v = at.Local()
			}
			row[j] = printable(plain(v, tableTime))
		}
		rows = append(rows, row)
	}
	for _, row := range rows {
		for j, cell := range row {
			t.widths[j] = max(t.widths[j], text.StringWidth(cell))
		}
	}
	p := t.app.paint()
	var out bytes.Buffer
	for i, row := range rows {
		var line strings.Builder
		for j, cell := range row {
			padding := strings.Repeat(" ", t.widths[j]-text.StringWidth(cell))
			switch {
			case i < heads:
				cell = p.as(faint, cell)
			case shown[j].tint != nil:
				cell = p.as(shown[j].tint(cell), cell)
			}
			line.WriteString(cell + padding + gap)
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := t.app.out.Write(out.Bytes())
	return err
}
