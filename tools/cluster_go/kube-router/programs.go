//go:build programs

// Package kuberouter names the program that is built from here, for `go mod tidy` to see what it needs.
package kuberouter

import _ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
