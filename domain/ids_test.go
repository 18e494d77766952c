package domain_test

import (
	"encoding/hex"
	"testing"
	"testing/quick"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

var chatEventID = uuid.MustParse("019cb6e0-1f2d-7c4b-9a3e-5d6f70819203")

// Receivers keep notification ids to deduplicate on, and the log keeps all of
// them: the values may never change.
func TestDerivedIDsAreStable(t *testing.T) {
	t.Parallel()
	notification := domain.NewNotificationID(7, chatEventID, 3)
	for _, c := range []struct {
		name string
		got  uuid.UUID
		want string
	}{
		{"Notification", notification, "019cb6e0-1f2d-8cec-84de-f48da6bbf5a7"},
		{"NotificationOfTheZeroEvent", domain.NewNotificationID(0, uuid.Nil, 0), "00000000-0000-8a2f-b181-c8b118fcd9c3"},
		{"NotificationOfTheLargestNumbers", domain.NewNotificationID(1<<63-1, uuid.Max, 1<<63-1), "ffffffff-ffff-8ccb-8a2f-9b8f3f89218e"},
		{"Delivery", domain.NewDeliveryID(notification, 88231, 0), "019cb6e0-1f2d-86c8-a40e-58df03600350"},
		{"DeliveryOfAReplay", domain.NewDeliveryID(notification, 88231, 1), "019cb6e0-1f2d-8635-b253-d4f9d94efb23"},
		{"Event", domain.NewEventID(7, 88231, t0), "019cb73d-3218-8ed6-a19f-d51ee405652e"},
		{"EventOfTheEpoch", domain.NewEventID(1, 1, time.Unix(0, 0)), "00000000-0000-85e1-b8ea-5cd8007abc5b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := c.got.String(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func wellFormed(id, prefix uuid.UUID) bool {
	return id.Version() == 8 && id.Variant() == uuid.RFC4122 && [6]byte(id[:6]) == [6]byte(prefix[:6])
}

func check(t *testing.T, property any) {
	t.Helper()
	if err := quick.Check(property, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

func TestDerivedIDsAreWellFormed(t *testing.T) {
	t.Parallel()
	check(t, func(account domain.AccountID, event domain.EventID, webhook domain.WebhookID, seq int64, replay domain.ReplayID) bool {
		notification := domain.NewNotificationID(account, event, webhook)
		return wellFormed(notification, event) && wellFormed(domain.NewDeliveryID(notification, seq, replay), event)
	})
	check(t, func(account domain.AccountID, seq int64, ms int64) bool {
		ms &= 1<<48 - 1 // until the year 10889
		id := domain.NewEventID(account, seq, time.UnixMilli(ms))
		var prefix uuid.UUID
		for i := range 6 {
			prefix[i] = byte(ms >> (40 - 8*i) & 0xff)
		}
		return wellFormed(id, prefix)
	})
}

// The same inputs give the same id, and a difference in any one another.
func TestDerivedIDsDiffer(t *testing.T) {
	t.Parallel()
	check(t, func(account, account2 domain.AccountID, event, event2 domain.EventID, webhook, webhook2 domain.WebhookID) bool {
		event2 = sometimes(event2[0], event, event2)
		webhook2 = sometimes(event2[1], webhook, webhook2)
		account2 = sometimes(event2[2], account, account2)
		same := account == account2 && event == event2 && webhook == webhook2
		return same == (domain.NewNotificationID(account, event, webhook) == domain.NewNotificationID(account2, event2, webhook2))
	})
	check(t, func(pick byte, notification, notification2 domain.NotificationID, seq, seq2 int64, replay, replay2 domain.ReplayID) bool {
		notification2 = sometimes(pick, notification, notification2)
		seq2 = sometimes(pick>>1, seq, seq2)
		replay2 = sometimes(pick>>2, replay, replay2)
		same := notification == notification2 && seq == seq2 && replay == replay2
		return same == (domain.NewDeliveryID(notification, seq, replay) == domain.NewDeliveryID(notification2, seq2, replay2))
	})
	check(t, func(pick byte, account, account2 domain.AccountID, seq, seq2 int64, ms uint32, micros uint16) bool {
		account2 = sometimes(pick, account, account2)
		seq2 = sometimes(pick>>1, seq, seq2)
		at := time.UnixMilli(int64(ms))
		same := account == account2 && seq == seq2
		// Microseconds are below the prefix's resolution: they change nothing.
		return same == (domain.NewEventID(account, seq, at) == domain.NewEventID(account2, seq2, at.Add(time.Duration(micros%1000)*time.Microsecond)))
	})
}

// sometimes gives a where the lowest bit of pick is set, else b.
func sometimes[T any](pick byte, a, b T) T {
	if pick&1 == 1 {
		return a
	}
	return b
}

// Flipping one bit of one input changes the id, and in the part behind the
// prefix: two events of one millisecond are told apart by the rest alone.
func TestDerivedIDsUseEveryBit(t *testing.T) {
	t.Parallel()
	base := domain.NewNotificationID(7, chatEventID, 3)
	for bit := range 64 {
		if domain.NewNotificationID(7^1<<bit, chatEventID, 3) == base {
			t.Errorf("bit %d of the account does not count", bit)
		}
		if domain.NewNotificationID(7, chatEventID, 3^1<<bit) == base {
			t.Errorf("bit %d of the webhook does not count", bit)
		}
		delivery := domain.NewDeliveryID(base, 5, 0)
		if domain.NewDeliveryID(base, 5^1<<bit, 0) == delivery {
			t.Errorf("bit %d of the sequence number does not count", bit)
		}
		if domain.NewDeliveryID(base, 5, 1<<bit) == delivery {
			t.Errorf("bit %d of the replay does not count", bit)
		}
	}
	for bit := range 128 {
		event := chatEventID
		event[bit/8] ^= 1 << (bit % 8)
		if got := domain.NewNotificationID(7, event, 3); [10]byte(got[6:]) == [10]byte(base[6:]) {
			t.Errorf("bit %d of the event id does not count behind the prefix: %s", bit, hex.EncodeToString(got[:]))
		}
	}
}

// Ids of later events are greater: indexes on them grow at one end.
func TestEventIDsFollowTime(t *testing.T) {
	t.Parallel()
	check(t, func(account domain.AccountID, seq int64, ms uint32) bool {
		at := time.UnixMilli(int64(ms))
		earlier, later := domain.NewEventID(account, seq, at), domain.NewEventID(account, seq+1, at.Add(time.Millisecond))
		return earlier.String() < later.String()
	})
}
