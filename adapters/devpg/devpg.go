// Package devpg runs a private PostgreSQL server for `outrider dev`, for
// benchmarks and for tests, so that none of them needs a database set up by
// hand.
//
// It stands beside the flow, not in it: the relay only ever sees the DSN. Start
// finds the installed binaries, makes a data directory and runs postgres as a
// child of this process: Stop ends it, Kill crashes it, Restart brings it back
// on the same port.
//
// It guarantees that only who has the password can connect (TCP on 127.0.0.1
// and a socket in a private folder, both with SCRAM), that what was committed
// survives Kill, and on Linux that the server ends with its parent, also when
// that is killed with SIGKILL. Elsewhere a killed parent leaves it running.
//
// It does not install PostgreSQL, upgrade a data directory, or make a server
// fit for production: without Config.Durable a crash of the machine may lose
// or damage everything.
package devpg

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/lib/pq"
)

const (
	// superuser owns the server and every database made through DSN.
	superuser = "outrider"

	// readyTimeout covers the crash recovery of a large development database.
	readyTimeout = 60 * time.Second

	// busyTimeout is how long a start waits for what a crashed server leaves
	// for a moment: its port, its lock file, its last backends.
	busyTimeout = 10 * time.Second

	// pollInterval is the pace of connecting until the server answers.
	pollInterval = 20 * time.Millisecond
)

// ErrRemoved is what Restart gives after Stop has removed a temporary server.
var ErrRemoved = errors.New("the temporary server was removed by its stop")

// Config says which server to start. The zero value is a throw-away server on
// a free port.
type Config struct {
	// Dir holds the server, "/home/me/outrider-dev". It is made where it is
	// missing and reused where an earlier Start made it; a folder with other
	// content is refused. Empty: a temporary folder that Stop removes.
	Dir string

	// TempDir is where a temporary folder is made. Empty: os.TempDir.
	TempDir string

	// BinDir holds initdb and postgres. Empty: what Find finds, of the version
	// that made Dir.
	BinDir string

	// Port on 127.0.0.1. 0: a free one, which Restart keeps.
	Port int

	// Settings for postgresql.conf, {"max_connections": "200"}. They win over
	// this package's own, and ALTER SYSTEM wins over them.
	Settings map[string]string

	// Durable turns fsync and full_page_writes on. Without it commits survive
	// Kill, and not a crash of the machine.
	Durable bool

	// Log gets the server's own lines at debug level, and an error where it
	// ends by itself. Nil: nothing is logged; LogTail has the lines.
	Log *slog.Logger
}

// Server is a running, stopped or killed PostgreSQL server. Its methods may be
// called from several goroutines.
type Server struct {
	config    Config
	binDir    string
	version   string
	dir       string
	temporary bool
	account   *account
	password  string
	log       *slog.Logger
	tail      *tail
	freePort  func(context.Context) (int, error)
	port      int // written by Start only

	mu      sync.Mutex
	lock    *os.File // nil once the directory is given up
	process *process // nil when the server is down
	removed bool
}

// Start starts a server and returns when it accepts connections. ctx bounds
// the start, not the server's life. The error carries the end of the server's
// log, or ErrNotFound with advice where PostgreSQL is not installed.
func Start(ctx context.Context, config Config) (*Server, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	s := newServer(config)
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.giveUp())
	}
	return s, nil
}

func newServer(config Config) *Server {
	s := &Server{config: config, log: config.Log, tail: &tail{}, freePort: freePort}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

func (s *Server) start(ctx context.Context) error {
	if err := s.claim(); err != nil {
		return err
	}
	if err := s.findBinaries(ctx); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	return s.launch(ctx, s.config.Port == 0, false)
}

func (s *Server) findBinaries(ctx context.Context) error {
	made, err := s.madeBy()
	if err != nil {
		return err
	}
	var found candidate
	if s.config.BinDir != "" {
		found, err = probe(ctx, s.config.BinDir)
	} else {
		found, err = newFinder().find(ctx, made)
	}
	if err != nil {
		return err
	}
	if made != 0 && made != found.major {
		return fmt.Errorf("the data in %s was made by PostgreSQL %d, and only %s was found, in %s", s.dir, made, found.version, found.dir)
	}
	s.binDir, s.version = found.dir, found.version
	return nil
}

// DSN is the URL under which the superuser reaches a database, as lib/pq and
// psql take it. It holds the password. The database need not exist; the server
// has "postgres".
func (s *Server) DSN(database string) string {
	dsn := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Host:     "127.0.0.1:" + strconv.Itoa(s.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return dsn.String()
}

// Port is the TCP port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// Dir is the folder with the data, the password and the socket.
func (s *Server) Dir() string { return s.dir }

// Version is that of the binaries, "15.18".
func (s *Server) Version() string { return s.version }

// LogTail is the last n lines of the server's log, at most 500.
func (s *Server) LogTail(n int) string { return s.tail.last(n) }

// Stop ends the server as `pg_ctl stop -m fast` does: open transactions are
// rolled back. When ctx ends first the server is shut down at once, to recover
// at its next start. A temporary directory is removed. Stopping a stopped or
// killed server only cleans up.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		if err := s.process.stop(ctx); err != nil {
			return err
		}
		s.process = nil
	}
	return s.giveUp()
}

// Kill ends the server as a power cut does, with SIGKILL, and waits until all
// its processes are gone. The directory stays: Restart recovers it, Stop
// removes it if it is temporary. A server that is down is left as it is.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	if err := s.process.kill(); err != nil {
		return err
	}
	s.process = nil
	return nil
}

// Restart starts the server again on the same directory and port, after a fast
// shutdown if it is running. It gives ErrRemoved after the Stop of a temporary
// server.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed {
		return ErrRemoved
	}
	if s.process != nil {
		if err := s.process.stop(ctx); err != nil {
			return err
		}
		s.process = nil
	}
	if s.lock == nil {
		lock, err := lockDir(s.dir)
		if err != nil {
			return err
		}
		s.lock = lock
	}
	return s.launch(ctx, false, true)
}

// giveUp lets go of the directory, and removes it if it is temporary.
func (s *Server) giveUp() error {
	var err error
	if s.temporary && !s.removed && s.dir != "" {
		removeSharedMemory(s.dataDir())
		err = os.RemoveAll(s.dir)
		s.removed = err == nil
	}
	if s.lock != nil {
		err = errors.Join(err, unlock(s.lock))
		s.lock = nil
	}
	return err
}

// launch runs postgres until it answers. With anyPort a port that someone took
// in the meantime is replaced; with patient it is waited for, since a server
// that restarts is known by its port. Remains of a crashed server in the
// directory are always waited for.
func (s *Server) launch(ctx context.Context, anyPort, patient bool) error {
	if s.port == 0 {
		s.port = s.config.Port
	}
	deadline := time.Now().Add(busyTimeout)
	for {
		if anyPort {
			port, err := s.freePort(ctx)
			if err != nil {
				return err
			}
			s.port = port
		}
		err := s.launchOnce(ctx)
		if err == nil {
			return nil
		}
		taken := errors.Is(err, errPortTaken)
		if again := errors.Is(err, errBusy) || taken && (anyPort || patient); !again || time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, 5*pollInterval); err != nil {
			return err
		}
	}
}

func (s *Server) launchOnce(ctx context.Context) error {
	if err := s.writeConf(); err != nil {
		return err
	}
	s.tail.reset()
	cmd := command(s.account, s.dataDir(), filepath.Join(s.binDir, "postgres"), "-D", s.dataDir())
	process, err := startProcess(cmd, s.tail, s.log)
	if err != nil {
		return fmt.Errorf("run postgres: %w", err)
	}
	if err := s.awaitReady(ctx, process); err != nil {
		killed := process.kill() // the log is complete after it
		return errors.Join(explain(err, s.tail.last(20)), killed)
	}
	process.serving.Store(true)
	s.process = process
	return nil
}

// awaitReady returns when the server lets the superuser in.
func (s *Server) awaitReady(ctx context.Context, process *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("postgres does not answer after %s", readyTimeout))
	defer cancel()
	connector, err := pq.NewConnector(s.DSN("postgres") + "&connect_timeout=5")
	if err != nil {
		return err
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-process.exited:
			return fmt.Errorf("postgres ended: %w", process.failure())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
		// Not before it says so: on a port that is taken the other program may
		// let us wait for an answer, when ours has long ended.
		if !saysReady(s.dataDir(), process.cmd.Process.Pid) {
			continue
		}
		connection, err := connector.Connect(ctx)
		if err != nil {
			return fmt.Errorf("connect to the new server: %w", err)
		}
		return connection.Close()
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// newPassword has 128 bits, in letters that need no escaping anywhere.
func newPassword() string {
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails; see crypto/rand
	return hex.EncodeToString(secret[:])
}
