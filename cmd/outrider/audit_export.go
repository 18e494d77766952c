package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) auditExport() *cobra.Command {
	cmd := parent(&cobra.Command{
		Use:   "export",
		Short: "Write the history as JSON Lines, however long it is",
		Long: `Write the history as JSON Lines, as the lists show it, newest first, however long it
is: it takes no more memory than a page. What comes meanwhile is left to the next
export. Where it is interrupted it says with which --after it goes on.`,
	})
	cmd.AddCommand(
		exportList(a, a.eventListing()),
		exportList(a, a.deliveryListing()),
		exportList(a, a.attemptListing()),
		exportList(a, a.timelineListing()),
		exportList(a, a.changeListing()),
	)
	return cmd
}

var timelineColumns = []column[audit.TimelineRecord]{
	{name: "seq", value: func(r *audit.TimelineRecord) any { return r.Seq }},
	{name: "at", value: func(r *audit.TimelineRecord) any { return orNever(r.At) }},
	{name: "account_id", value: func(r *audit.TimelineRecord) any { return r.AccountID }},
	{name: "stream", value: func(r *audit.TimelineRecord) any { return r.Stream }},
	{name: "stream_id", value: func(r *audit.TimelineRecord) any { return r.StreamID }},
	{name: "version", value: func(r *audit.TimelineRecord) any { return r.Version }},
	{name: "type", value: func(r *audit.TimelineRecord) any { return r.Type }},
	{name: "event_id", value: func(r *audit.TimelineRecord) any { return idOrNil(r.EventID) }},
	{name: "delivery_id", value: func(r *audit.TimelineRecord) any {
		if !r.DeliveryID.Valid || r.DeliveryID.UUID == uuid.Nil {
			return nil
		}
		return r.DeliveryID.UUID.String()
	}},
	{name: "data", value: func(r *audit.TimelineRecord) any { return r.Data }},
}

// timelineListing is for the export alone: whose life one wants to see, one
// asks audit trace.
func (a *app) timelineListing() listing[audit.TimelineRecord] {
	events := a.eventListing()
	return listing[audit.TimelineRecord]{
		list: audit.TimelineList, short: "Write all entries of the log about events and their deliveries",
		long: `Write all entries of the log about events and their deliveries: the newest events
first, the entries of each in their order. The filters select events.

--since and --until are of the routing. Entries about webhooks are in: export changes.`,
		filters: events.filters, columns: timelineColumns, read: (*postgres.Audit).Timeline,
	}
}

// exportPage is how many records are read at once.
const exportPage = 1000

func exportList[T any](a *app, l listing[T]) *cobra.Command {
	var filter audit.Filter
	var after *audit.Cursor
	var output string
	cmd := &cobra.Command{Use: string(l.list), Short: l.short, Long: l.long, Args: cobra.ArbitraryArgs}
	flags := cmd.Flags()
	a.filterFlags(flags, &filter, l.filters)
	flagOf(flags, &after, "after", "CURSOR", "", "go on where an export was interrupted", parseCursor(l.list))
	flagOf(flags, &output, "output", "FILE", "", "file to write, complete or not at all (default: standard output)", anyText)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		c.filter(&filter)
		if c.given("output") && output == "" {
			c.add("--output: the name of a file is missing")
		}
		if err := c.err(); err != nil {
			return err
		}
		filter.Limit = exportPage
		return a.withDatabase(conf, func(db *sql.DB) error {
			file, err := a.exportTo(output, after != nil)
			if err != nil {
				return err
			}
			e := &exporting{app: a, audit: postgres.NewAudit(db), filter: filter, last: after, live: &liveLine{out: a.err, width: a.errWidth}}
			err = exportAll(cmd.Context(), e, l, file)
			e.live.clear()
			return e.end(file, err)
		})
	}
	return cmd
}

// exporting is an export that is under way.
type exporting struct {
	app    *app
	audit  *postgres.Audit
	filter audit.Filter
	// last is behind what is written, nil at the beginning.
	last *audit.Cursor
	live *liveLine

	rows        int
	begun       time.Time
	above, upTo int64 // of the outbox; both 0 where how far it is cannot be told
}

// exportAll writes page after page.
func exportAll[T any](ctx context.Context, e *exporting, l listing[T], file *exportFile) error {
	e.begun = time.Now()
	if l.list != audit.ChangeList {
		var err error
		if e.above, e.upTo, err = e.audit.Span(ctx, e.filter); err != nil {
			return err
		}
	}
	out := bufio.NewWriter(file)
	for {
		page, err := l.read(e.audit, ctx, e.filter, e.last)
		if err != nil {
			return err
		}
		for i := range page.Records {
			if err := writeObject(out, l.columns, &page.Records[i]); err != nil {
				return err
			}
		}
		if err := errors.Join(out.Flush(), file.keep()); err != nil {
			return err
		}
		e.rows += len(page.Records)
		if page.Next == nil {
			return nil
		}
		e.last = page.Next
		e.tell()
	}
}

// tell shows how far it is.
func (e *exporting) tell() {
	const quiet = 10 * time.Second // between lines where there is no terminal
	line := e.summary()
	if e.upTo > e.above {
		share := float64(e.upTo-e.last.Seq) / float64(e.upTo-e.above)
		line += fmt.Sprintf(" · %.0f %%", 100*min(max(share, 0), 0.99))
	}
	e.live.show(line, quiet)
}

func (e *exporting) summary() string {
	spent := time.Since(e.begun)
	return fmt.Sprintf("%s rows in %s · %s rows/s", grouped(e.rows), spent.Round(time.Second/10), grouped(int(float64(e.rows)/max(spent.Seconds(), 0.001))))
}

// end makes the file whole, or says how to go on.
func (e *exporting) end(file *exportFile, err error) error {
	if err == nil {
		err = file.finish()
	}
	if err == nil {
		fmt.Fprintln(e.app.err, e.summary())
		return nil
	}
	if left := file.abandon(e.last != nil); left != "" {
		fmt.Fprintf(e.app.err, "What is written so far is in %s, and is added to by the same command with --after.\n", left)
	}
	if e.last != nil {
		fmt.Fprintf(e.app.err, "Go on with: --after %s\n", e.last)
	}
	return err
}

// exportFile is standard output, or a file that has another name until it is
// complete.
type exportFile struct {
	io.Writer
	file *os.File
	name string
	// whole is how many bytes are of pages that were written wholly.
	whole int64
}

// partial ends the name of a file that is not complete.
const partial = ".partial"

// exportTo opens the file. One that an interrupted export left is gone on with.
func (a *app) exportTo(name string, resumed bool) (*exportFile, error) {
	if name == "" {
		return &exportFile{Writer: a.out}, nil
	}
	how := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if resumed {
		how = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	file, err := os.OpenFile(name+partial, how, 0o600) //nolint:gosec // the file that the user names
	if err != nil {
		return nil, fmt.Errorf("--output: %w", err)
	}
	f := &exportFile{Writer: file, file: file, name: name}
	err = f.keep()
	return f, err
}

// keep notes that all up to here is of whole pages.
func (f *exportFile) keep() error {
	if f.file == nil {
		return nil
	}
	info, err := f.file.Stat()
	if err == nil {
		f.whole = info.Size()
	}
	return err
}

func (f *exportFile) finish() error {
	if f.file == nil {
		return nil
	}
	return errors.Join(f.file.Sync(), f.file.Close(), os.Rename(f.name+partial, f.name))
}

// abandon closes a file that is not complete, and gives its name where it is
// kept.
func (f *exportFile) abandon(keep bool) string {
	if f.file == nil {
		return ""
	}
	_ = f.file.Truncate(f.whole) // what follows is written again
	_ = f.file.Close()
	if keep {
		return f.name + partial
	}
	if err := os.Remove(f.name + partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.name + partial
	}
	return ""
}
