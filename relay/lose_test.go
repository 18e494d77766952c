package relay

import "testing"

// TestShardsAreToldOfUntilTheyAreGivenUpOnRecord: a relay that dies in between
// leaves them where it had come to, not where it had found them.
func TestShardsAreToldOfUntilTheyAreGivenUpOnRecord(t *testing.T) {
	t.Parallel()
	d := newTestDispatcher(nothingWaits{}, nil)
	told := Place{}
	d.moved = func(p Place) { told = p }
	d.head, d.commit = 900, 50
	d.feeds = []*feed{{shards: AllShards, last: 800}}
	const given = Shards(0b110)
	places := d.giveUp(given)
	if len(places) != 1 || places[0] != (Place{Position: 800, Low: 51 << 20, Shards: given}) {
		t.Fatalf("given up at %+v", places)
	}
	d.feeds[0].last = 850 // what is left goes on
	if told.Shards != AllShards || d.place() != (Place{Position: 800, Low: 51 << 20, Shards: AllShards}) {
		t.Errorf("told %+v, and now it is %+v", told, d.place())
	}
	// What was cut short is asked for again.
	if again := d.giveUp(given); len(again) != 1 || again[0] != places[0] {
		t.Errorf("asked again, they are at %+v", again)
	}
	done := make(chan error, 1)
	go func() { done <- d.gaveUp(t.Context(), given) }()
	<-d.inbox.wake
	d.take()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if told != (Place{Position: 850, Low: 51 << 20, Shards: AllShards &^ given}) {
		t.Errorf("once it is on record it tells %+v", told)
	}
}
