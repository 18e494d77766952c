package postgres_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain/audit"
)

// FuzzAuditCursor: a cursor is one that a page of the list ended with, or is
// refused.
func FuzzAuditCursor(f *testing.F) {
	lists := []audit.List{audit.EventList, audit.DeliveryList, audit.AttemptList, audit.TimelineList, audit.ChangeList}
	for i, list := range lists {
		cursor := audit.Cursor{List: list, Seq: 1<<63 - 1, WebhookID: 2, ReplayID: 3, Attempt: 4, AccountID: 5, Version: 6}
		f.Add(byte(i), cursor.String())
	}
	for _, text := range []string{"", "events", "events 1", "events -1", "events 01", "events 1 2", "deliveries 1 2 3", "attempts 1 2 3 99999999999999999999", " 1", "changes 1 2 3\n", "pages 1"} {
		f.Add(byte(0), base64.RawURLEncoding.EncodeToString([]byte(text)))
		f.Add(byte(1), text)
	}
	f.Fuzz(func(t *testing.T, pick byte, text string) {
		list := lists[int(pick)%len(lists)]
		cursor, err := audit.ParseCursor(list, text)
		if err != nil {
			if cursor != (audit.Cursor{}) {
				t.Fatalf("%q gives %+v beside the error %v", text, cursor, err)
			}
			return
		}
		if cursor.List != list || cursor.Seq < 0 || cursor.WebhookID < 0 || cursor.ReplayID < 0 || cursor.AccountID < 0 || cursor.Version < 0 || cursor.Attempt < 0 {
			t.Fatalf("%q gives %+v for %s", text, cursor, list)
		}
		again, err := audit.ParseCursor(list, cursor.String())
		if err != nil || again != cursor {
			t.Fatalf("%q gives %+v, and that %+v: %v", text, cursor, again, err)
		}
	})
}

// FuzzEntryRow: a row in the form of record_send is digested whole or refused:
// one that is cut short never is a row.
func FuzzEntryRow(f *testing.F) {
	number := func(size int) []byte { return bytes.Repeat([]byte{1}, size) }
	row := binary.BigEndian.AppendUint32(nil, 14)
	for i, field := range [][]byte{number(8), number(4), number(4), number(8), number(8), number(8), number(8), number(8), number(8), []byte("held"), []byte("{}"), nil, number(16), nil} {
		row = binary.BigEndian.AppendUint32(row, uint32(i))
		if field == nil {
			row = binary.BigEndian.AppendUint32(row, 1<<32-1)
			continue
		}
		row = append(binary.BigEndian.AppendUint32(row, uint32(len(field))), field...) //nolint:gosec // short
	}
	f.Add(row)
	f.Add([]byte{})
	f.Add(row[:4])
	f.Add(row[:len(row)-1])
	f.Add(append(bytes.Clone(row), 0))
	f.Add(append(bytes.Clone(row[:8]), 0x7f, 0xff, 0xff, 0xff))
	f.Add(append(bytes.Clone(row[:8]), 0x80, 0, 0, 0))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		digest, err := postgres.DigestRow(raw)
		if !bytes.Equal(raw, before) {
			t.Fatalf("%x became %x", before, raw)
		}
		if err != nil {
			return
		}
		for n := range raw {
			if _, err := postgres.DigestRow(raw[:n]); err == nil {
				t.Fatalf("%x is a row, and so are its first %d bytes", raw, n)
			}
		}
		if again, err := postgres.DigestRow(before); err != nil || again != digest {
			t.Fatalf("%x digests to %x, then to %x: %v", raw, digest, again, err)
		}
	})
}

// FuzzKeptSettings: settings that an operator, or another version, wrote into the
// table are read, and written again as what is read as the same; or they are
// refused.
func FuzzKeptSettings(f *testing.F) {
	for _, text := range []string{
		`{}`, `null`, ``, `[]`, `{"url":"https://example.com","timeout":"5s","max_concurrency":16,"order_hold":"30s","subscriptions":["message_created"]}`, `{"timeout":"5s","order_hold":"forever"}`,
		`{"timeout":"-5s","order_hold":"-1ns"}`, `{"timeout":"00:00:05","order_hold":"0"}`, `{"timeout":5,"order_hold":"1s"}`, `{"timeout":"5s","order_hold":"1s","inbox_id":9223372036854775808}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		settings, err := postgres.ReadSettings(text)
		if err != nil {
			return
		}
		written := postgres.WriteSettings(settings)
		again, err := postgres.ReadSettings(written)
		if err != nil || !reflect.DeepEqual(again, settings) {
			t.Fatalf("%q is read as %+v, and written as %q: %+v, %v", text, settings, written, again, err)
		}
	})
}

// FuzzProducersTime: a time that a producer gave is one that JSON can have, or is
// left out.
func FuzzProducersTime(f *testing.F) {
	for _, text := range []string{"", "infinity", "-infinity", "2026-07-01 12:00:00+00", "2026-07-01 12:00:00.123456+05:30", "0044-03-15 12:00:00+00 BC", "20000-01-01 00:00:00+00", "9999-12-31 23:59:59-12", "0001-01-01 00:00:00+15"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at := postgres.ProducersTime(text)
		if at.IsZero() {
			return
		}
		if _, err := at.MarshalJSON(); err != nil {
			t.Fatalf("%q gives %s: %v", text, at, err)
		}
		if at.Location() != time.UTC || !strings.Contains(text, "-") {
			t.Fatalf("%q gives %s", text, at)
		}
	})
}
