//go:build unix && !linux

package main

import "syscall"

// childAttributes: a child of a parent that is killed goes on here, until its
// private database is gone.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
