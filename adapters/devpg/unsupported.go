//go:build !unix

package devpg

import (
	"errors"
	"os"
	"syscall"
)

var errUnsupported = errors.New("a private PostgreSQL server needs Linux, macOS or another Unix; give the URL of a server instead")

func supported() error { return errUnsupported }

type account struct {
	name     string
	uid, gid int
}

func accountFor(string) (*account, error)      { return nil, errUnsupported }
func attributes(*account) *syscall.SysProcAttr { return nil }
func killTree(parent *os.Process)              { _ = parent.Kill() }
func ownedByUs(string) bool                    { return false }
func firstUnpassable(string, *account) string  { return "" }
func lockDir(string) (*os.File, error)         { return nil, errUnsupported }
func createLock(string) (*os.File, error)      { return nil, errUnsupported }
func unlock(file *os.File) error               { return file.Close() }
func processAlive(int) bool                    { return false }
