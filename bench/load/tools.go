//go:build tools

// Package tools pins vegeta, the open-loop load generator.
package tools

import _ "github.com/tsenart/vegeta/v12"
