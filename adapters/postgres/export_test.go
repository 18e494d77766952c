package postgres

import (
	"encoding/json"
	"net"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// ChangedQuery is for a test of its plan.
const ChangedQuery = changedQuery

// These are for a test of what is planned once.
const (
	HeadQuery       = headQuery
	RecordStatement = recordStatement
)

// The helpers of other files of the package.
var (
	IsCode          = isCode
	IsLockTimeout   = isLockTimeout
	IsSerialization = isSerialization
)

// NewWire is a relay's connection with another limit.
func NewWire(conn net.Conn, limit time.Duration) net.Conn { return &wire{Conn: conn, limit: limit} }

// EntriesQuery is what a verification reads entries with.
const EntriesQuery = entriesQuery

// DigestRow is what a verification makes of a row of EntriesQuery.
func DigestRow(raw []byte) (domain.Hash, error) {
	row, err := new(entryReader).read(raw)
	return row.digest, err
}

// ReadSettings reads settings as the table keeps them, WriteSettings writes them.
func ReadSettings(text string) (domain.Settings, error) {
	var kept settingsJSON
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		return domain.Settings{}, err
	}
	return kept.settings()
}

// WriteSettings is the other way.
func WriteSettings(settings domain.Settings) string {
	text, _ := json.Marshal(shownSettings(settings)) //nolint:errchkjson // texts and numbers
	return string(text)
}

// ProducersTime reads a time as PostgreSQL writes it.
var ProducersTime = producersTime
