package devpg

import (
	"context"
	"path/filepath"
)

// Halt ends the server as Stop does, but leaves its directory, also a
// temporary one: Restart starts it again. Halting a server that is down does
// nothing.
func (s *Server) Halt(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	if err := s.process.stop(ctx); err != nil {
		return err
	}
	s.process = nil
	return nil
}

// Data is the data directory: what a physical copy of the server is.
func (s *Server) Data() string { return s.dataDir() }

// Program runs one of PostgreSQL's programs, such as pg_dump or pg_resetwal, of
// the server's version and as the account that the server runs as, in the
// folder of its socket, which that account may write to. The output of one that
// fails is in the error.
func (s *Server) Program(ctx context.Context, name string, args ...string) error {
	return runProcess(ctx, command(s.account, s.runDir(), filepath.Join(s.binDir, name), args...))
}
