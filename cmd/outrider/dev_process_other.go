//go:build !unix

package main

import "syscall"

// childAttributes are the default; devpg refuses to start here anyway.
func childAttributes() *syscall.SysProcAttr { return nil }
