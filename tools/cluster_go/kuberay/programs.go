//go:build programs

// Package kuberay names the program that is built from here, for `go mod tidy` to see what it needs.
package kuberay

import _ "github.com/ray-project/kuberay/ray-operator"
