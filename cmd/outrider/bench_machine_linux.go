package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// peakMemory is the most that a running process had resident, in bytes; 0
// where that is not known. What wait4 tells would count the moment between
// fork and exec, when the child is as large as this process.
func peakMemory(pid int) int64 {
	return kilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
}

// machineMemory is the machine's, in bytes.
func machineMemory() int64 { return kilobytes("/proc/meminfo", "MemTotal") }

// machineCPU names the processor.
func machineCPU() string { return procField("/proc/cpuinfo", "model name") }

func kilobytes(path, name string) int64 {
	text, _, _ := strings.Cut(procField(path, name), " ")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// procField finds a line "name: value".
func procField(path, name string) string {
	file, err := os.Open(path) //nolint:gosec // a file of the kernel
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
