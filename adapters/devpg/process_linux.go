package devpg

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// attributes makes the child end with us: SIGQUIT is PostgreSQL's immediate
// shutdown, which takes all its processes along.
func attributes(account *account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT, Credential: account.credential()}
}

// killTree kills the postmaster with its children, since one that is busy would
// go on, and commit, until it looks for its parent. The postmaster is halted
// first so that no child is missed.
func killTree(parent *os.Process) {
	_ = parent.Signal(syscall.SIGSTOP)
	children := childrenOf(parent.Pid)
	_ = parent.Kill()
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
}

// childrenOf reads the parent from the 4th field of each /proc/PID/stat; see
// proc(5). The 2nd, a name in parentheses, may hold anything.
func childrenOf(parent int) []int {
	var children []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		content, err := os.ReadFile(file) //nolint:gosec // from /proc
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			children = append(children, pid)
		}
	}
	return children
}
