package httpsend_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpsend"
)

// The test vector of the Standard Webhooks libraries.
const (
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime      = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestStandardSignature(t *testing.T) {
	t.Parallel()
	key := secretOf(t, standardSecret).StandardKey()
	if got := httpsend.StandardSignature(key, vectorID, vectorTime, []byte(vectorBody)); got != vectorSignature {
		t.Errorf("got %s, want %s", got, vectorSignature)
	}
}

func TestChatwootSignature(t *testing.T) {
	t.Parallel()
	const want = "sha256=8cbe751d1647ec8075cdad2029266a8625beb74943c8c772267a55cbb67c0273"
	got := httpsend.ChatwootSignature("test-secret", 1785232800, []byte(`{"event":"message_created","id":1}`))
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVerifyStandard(t *testing.T) {
	t.Parallel()
	key := secretOf(t, standardSecret).StandardKey()
	at := time.Unix(vectorTime, 0)
	for _, c := range []struct {
		name                      string
		id, timestamp, signatures string
		body                      string
		now                       time.Time
		want                      error
	}{
		{"OK", vectorID, "1614265330", vectorSignature, vectorBody, at, nil},
		{"SecondOfTwo", vectorID, "1614265330", "v1,AAAA " + vectorSignature, vectorBody, at, nil},
		{"OtherSchemesPassedOver", vectorID, "1614265330", "v1a,AAAA  " + vectorSignature + " v2,x", vectorBody, at, nil},
		{"Oldest", vectorID, "1614265330", vectorSignature, vectorBody, at.Add(httpsend.Tolerance), nil},
		{"Newest", vectorID, "1614265330", vectorSignature, vectorBody, at.Add(-httpsend.Tolerance), nil},
		{"TooOld", vectorID, "1614265330", vectorSignature, vectorBody, at.Add(httpsend.Tolerance + time.Second), httpsend.ErrTimestamp},
		{"FromTheFuture", vectorID, "1614265330", vectorSignature, vectorBody, at.Add(-httpsend.Tolerance - time.Second), httpsend.ErrTimestamp},
		{"NoTimestamp", vectorID, "", vectorSignature, vectorBody, at, httpsend.ErrTimestamp},
		{"NotATimestamp", vectorID, "1614265330.5", vectorSignature, vectorBody, at, httpsend.ErrTimestamp},
		{"HugeTimestamp", vectorID, "9223372036854775808", vectorSignature, vectorBody, at, httpsend.ErrTimestamp},
		{"OtherTimestamp", vectorID, "1614265331", vectorSignature, vectorBody, at, httpsend.ErrSignature},
		{"OtherID", vectorID + "x", "1614265330", vectorSignature, vectorBody, at, httpsend.ErrSignature},
		{"OtherBody", vectorID, "1614265330", vectorSignature, vectorBody + " ", at, httpsend.ErrSignature},
		{"NoSignature", vectorID, "1614265330", "", vectorBody, at, httpsend.ErrSignature},
		{"WithoutVersion", vectorID, "1614265330", strings.TrimPrefix(vectorSignature, "v1,"), vectorBody, at, httpsend.ErrSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := httpsend.VerifyStandard(key, c.id, c.timestamp, c.signatures, []byte(c.body), c.now)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestVerifyChatwoot(t *testing.T) {
	t.Parallel()
	body := []byte(`{"event":"message_created","id":1}`)
	signature := httpsend.ChatwootSignature(opaqueSecret, present.Unix(), body)
	for _, c := range []struct {
		name, secret, timestamp, signature string
		now                                time.Time
		want                               error
	}{
		{"OK", opaqueSecret, "1785232800", signature, present, nil},
		{"OtherSecret", opaqueSecret + "x", "1785232800", signature, present, httpsend.ErrSignature},
		{"NoSignature", opaqueSecret, "1785232800", "", present, httpsend.ErrSignature},
		{"TooOld", opaqueSecret, "1785232800", signature, present.Add(time.Hour), httpsend.ErrTimestamp},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if err := httpsend.VerifyChatwoot(c.secret, c.timestamp, c.signature, body, c.now); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func ExampleVerifyStandard() {
	key := []byte("the bytes behind the whsec_ of the webhook's secret")
	body := []byte(`{"event":"message_created","id":1}`)
	now := time.Unix(1785232800, 0)

	header := http.Header{}
	header.Set("webhook-id", "01989d5e-7f3a-8c21-9d4b-6a1f0e2b3c4d")
	header.Set("webhook-timestamp", "1785232800")
	header.Set("webhook-signature", httpsend.StandardSignature(key, "01989d5e-7f3a-8c21-9d4b-6a1f0e2b3c4d", 1785232800, body))

	err := httpsend.VerifyStandard(key, header.Get("webhook-id"), header.Get("webhook-timestamp"), header.Get("webhook-signature"), body, now)
	fmt.Println(err)
	// Output: <nil>
}

func TestValidTraceparent(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": true,
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00": true,
		"":                                    false,
		"00-0af7651916cd43dd8448eb211c80319c": false,
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":   false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01":   false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01":   false,
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01":   false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01":   false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-\r\n": false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x": false,
	} {
		if got := httpsend.ValidTraceparent(value); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}
