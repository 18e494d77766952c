//go:build unix

package devpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// supported tells whether this system can run the server at all.
func supported() error { return nil }

// account is the user who runs PostgreSQL; nil is ourselves.
type account struct {
	name     string
	uid, gid int
}

// accountFor is nil except for root, whom PostgreSQL refuses: then it is the
// owner of the data, else postgres, else nobody.
func accountFor(data string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil is ourselves, see account
	}
	if owner, ok := ownerOf(data); ok && owner.uid != 0 {
		return owner, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(found.Uid)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.Atoi(found.Gid)
		if err != nil {
			return nil, err
		}
		return &account{name: name, uid: uid, gid: gid}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")
}

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // user ids are 32 bits
}

func ownerOf(path string) (*account, bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, false
	}
	return &account{name: "#" + strconv.Itoa(int(stat.Uid)), uid: int(stat.Uid), gid: int(stat.Gid)}, true
}

func ownedByUs(dir string) bool {
	owner, ok := ownerOf(dir)
	return ok && owner.uid == os.Geteuid()
}

// firstUnpassable is the first folder on the way to dir that the account may
// not pass, "" where there is none. It judges by the mode bits only.
func firstUnpassable(dir string, account *account) string {
	if account == nil {
		return ""
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return dir
		}
		owner, _ := info.Sys().(*syscall.Stat_t)
		need := fs.FileMode(0o001)
		switch {
		case owner == nil:
		case int(owner.Uid) == account.uid:
			need = 0o100
		case int(owner.Gid) == account.gid:
			need = 0o010
		}
		if info.Mode()&need == 0 {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

// lockDir claims a directory until the file is closed or the process ends. A
// child does not inherit the lock: Go opens files close-on-exec.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600) //nolint:gosec // a path of our own making
	if err != nil {
		return nil, err
	}
	if err := flock(file); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%s is in use by another process: %w", dir, err)
	}
	return file, nil
}

// createLock gives a new directory its lock, which appears as a locked one.
func createLock(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, lockName)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(flock(file), os.Rename(file.Name(), filepath.Join(dir, lockName))); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

func flock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// unlock does not leave it to the closing: a child that is being forked has the
// file too, until it runs its program.
func unlock(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}

// processAlive counts a process of somebody else, EPERM, as alive.
func processAlive(pid int) bool {
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
