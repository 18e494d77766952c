package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

type (
	// AccountID is the chat system's account: the tenant.
	AccountID int64
	// WebhookID identifies one registered URL of an account.
	WebhookID int64
	// ReplayID identifies a replay; 0 is the first delivery, made by routing.
	ReplayID int64
	// EventID is the idempotency key of a chat event, unique per account
	// within the duplicate window.
	EventID = uuid.UUID
	// NotificationID names one chat event for one webhook. It is what
	// receivers deduplicate on, the same for every retry and replay.
	NotificationID = uuid.UUID
	// DeliveryID names the duty to bring a notification to its webhook once.
	DeliveryID = uuid.UUID
)

// DeliveryKey is a delivery's identity in the log: small, ordered by the chat
// event's place in the outbox, and enough to derive every other id.
type DeliveryKey struct {
	EventSeq  int64
	WebhookID WebhookID
	ReplayID  ReplayID
}

// NewNotificationID derives the id that all deliveries of one chat event to
// one webhook share, and that receivers see as webhook-id.
func NewNotificationID(account AccountID, event EventID, webhook WebhookID) NotificationID {
	var in [1 + 8 + 16 + 8]byte
	in[0] = 'n'
	put(in[1:], account)
	copy(in[9:], event[:])
	put(in[25:], webhook)
	return derive(event, in[:])
}

// NewDeliveryID derives a delivery's id from its notification, the chat
// event's sequence number (an event id may come back after the duplicate
// window) and the replay that asked for it.
func NewDeliveryID(notification NotificationID, seq int64, replay ReplayID) DeliveryID {
	var in [1 + 16 + 8 + 8]byte
	in[0] = 'd'
	copy(in[1:], notification[:])
	put(in[17:], seq)
	put(in[25:], replay)
	return derive(notification, in[:])
}

// NewEventID derives the id of a chat event that was inserted with an explicit
// NULL id. insertedAt gives the time prefix that keeps indexes on ids local.
func NewEventID(account AccountID, seq int64, insertedAt time.Time) EventID {
	var in [1 + 8 + 8]byte
	in[0] = 'e'
	put(in[1:], account)
	put(in[9:], seq)
	return derive(timePrefix(insertedAt), in[:])
}

// newDeadID derives the id of the chat event that tells of a dead delivery: it
// dies once.
func newDeadID(delivery DeliveryID) EventID {
	var in [1 + 16]byte
	in[0] = 'x'
	copy(in[1:], delivery[:])
	return derive(delivery, in[:])
}

// newDisabledID derives the id of the chat event that tells of a disabled
// webhook: an account's version is of one change.
func newDisabledID(account AccountID, version int64, at time.Time) EventID {
	var in [1 + 8 + 8]byte
	in[0] = 'w'
	put(in[1:], account)
	put(in[9:], version)
	return derive(timePrefix(at), in[:])
}

// timePrefix gives the first 48 bits of a derived id: milliseconds since 1970.
func timePrefix(at time.Time) uuid.UUID {
	var prefix uuid.UUID
	binary.BigEndian.PutUint64(prefix[:8], uint64(at.UnixMilli())<<16)
	return prefix
}

// put writes a number as it stands in what is hashed: eight bytes, the most
// significant first, in two's complement.
func put[N ~int64](b []byte, n N) {
	binary.BigEndian.PutUint64(b, uint64(n))
}

// derive makes a UUID version 8 (RFC 9562 §5.8): the first 48 bits are those
// of prefix, the rest is SHA-256 over in.
func derive(prefix uuid.UUID, in []byte) uuid.UUID {
	sum := sha256.Sum256(in)
	var id uuid.UUID
	copy(id[:6], prefix[:6])
	copy(id[6:], sum[:10])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}
