// Package main: an HTTP server and its clients, goroutines that must be preempted, signals, a nil pointer, processes.
// With an argument it only serves.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %x", r.Method, sha256.Sum256(body))
	})
	listener, err := net.Listen("tcp", ":8080")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, nil)
	if len(os.Args) > 1 {
		fmt.Println("serving")
		select {}
	}
	var group sync.WaitGroup
	answers := make(chan string, 200)
	for n := 0; n < 200; n++ {
		group.Add(1)
		go func() {
			defer group.Done()
			answer, err := http.Post("http://127.0.0.1:8080/", "text/plain", strings.NewReader("hello"))
			if err != nil {
				answers <- err.Error()
				return
			}
			text, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			answers <- string(text)[:13]
		}()
	}
	group.Wait()
	close(answers)
	seen := map[string]int{}
	for answer := range answers {
		seen[answer]++
	}
	fmt.Println(seen)
	// Goroutines that never call: preempted by SIGURG so that others and the collector run.
	runtime.GOMAXPROCS(2)
	stop := false
	for n := 0; n < 2; n++ {
		go func() {
			for !stop {
			}
		}()
	}
	time.Sleep(20 * time.Millisecond)
	runtime.GC()
	stop = true
	fmt.Println("collected")
	total, lock := 0, sync.Mutex{}
	for n := 0; n < 1000; n++ {
		group.Add(1)
		go func() {
			defer group.Done()
			lock.Lock()
			total++
			lock.Unlock()
			time.Sleep(time.Millisecond)
		}()
	}
	group.Wait()
	fmt.Println(total)
	func() {
		defer func() { fmt.Println(recover()) }()
		var nothing *int
		*nothing = 1
	}()
	output, err := exec.Command("sh", "-c", "echo child; exit 3").Output()
	fmt.Printf("%s%v\n", output, err)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-signals)
	os.WriteFile("/tmp/gofile", []byte(strings.Repeat("line\n", 1000)), 0644)
	entries, _ := os.ReadDir("/proc/self/fd")
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	sort.Strings(names)
	fmt.Println(len(names) > 3 && names[0] == "0")
	ticker := time.NewTicker(5 * time.Millisecond)
	for n := 0; n < 10; n++ {
		<-ticker.C
	}
	connection, err := net.DialTimeout("tcp", "127.0.0.1:1", time.Second)
	fmt.Println(connection, err)
	os.Exit(4)
}
