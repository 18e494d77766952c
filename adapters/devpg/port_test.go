package devpg

import (
	"context"
	"net"
	"testing"
)

// The port that freePort found may be taken before postgres listens on it.
func TestFreePortIsTakenInTheMeantime(t *testing.T) {
	t.Parallel()
	var listening net.ListenConfig
	other, err := listening.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	address, ok := other.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal(other.Addr())
	}
	taken := address.Port

	s := newServer(Config{})
	tries := 0
	s.freePort = func(ctx context.Context) (int, error) {
		tries++
		if tries == 1 {
			return taken, nil
		}
		return freePort(ctx)
	}
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tries != 2 || s.Port() == taken {
		t.Errorf("port %d after %d tries, the taken one is %d", s.Port(), tries, taken)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
