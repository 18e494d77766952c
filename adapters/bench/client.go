package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// Client is the bare HTTP client that a relay is compared with: net/http as it
// comes, connections kept alive, nothing recorded.
type Client struct {
	// URL is the receiver's root.
	URL string
	// Run is the number of the receiver's run, Count how many POSTs to make.
	Run, Count int
	// Connections to keep busy.
	Connections int
}

// Post makes the POSTs.
func (c Client) Post(ctx context.Context) error {
	transport := &http.Transport{MaxIdleConnsPerHost: c.Connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	var next atomic.Int64
	var clients sync.WaitGroup
	failed := make(chan error, c.Connections)
	for range c.Connections {
		clients.Go(func() {
			content := body(c.Run, 0)
			for {
				n := int(next.Add(1)) - 1
				if n >= c.Count {
					return
				}
				setNumber(content, n)
				if err := c.post(ctx, transport, fmt.Sprintf("%s/%d", c.URL, n%Accounts), content); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	clients.Wait()
	close(failed)
	var problems []error
	for err := range failed {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%d of %d connections failed: %w", len(problems), c.Connections, errors.Join(problems[0]))
	}
	return nil
}

func (c Client) post(ctx context.Context, transport *http.Transport, url string, content []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}
