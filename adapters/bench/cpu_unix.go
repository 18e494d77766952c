//go:build unix

package bench

import (
	"syscall"
	"time"
)

// usedCPU is this process's time so far, in user and system mode.
func usedCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
