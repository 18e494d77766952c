//go:build linux && (amd64 || arm64)

package devpg

import (
	"fmt"
	"syscall"
)

// removeSharedMemory removes the System V segment of a server that was killed
// and will not start again, which would have done it. A machine has room for
// 4096 of them. The pid file, which PostgreSQL removes when it ends well, has
// its key and id. The kernel keeps a segment that is not ours to remove.
func removeSharedMemory(data string) {
	var key, id uintptr
	if n, _ := fmt.Sscan(readPIDFile(data).line(sharedMemoryLine), &key, &id); n == 2 {
		_, _, _ = syscall.Syscall(syscall.SYS_SHMCTL, id, ipcRemove, 0)
	}
}

// ipcRemove is IPC_RMID, see shmctl(2).
const ipcRemove = 0
