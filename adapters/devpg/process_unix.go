//go:build unix && !linux

package devpg

import (
	"os"
	"syscall"
)

// attributes: there is no parent-death signal here.
func attributes(account *account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: account.credential()}
}

// killTree leaves the children to notice that the postmaster is gone.
func killTree(parent *os.Process) { _ = parent.Kill() }
