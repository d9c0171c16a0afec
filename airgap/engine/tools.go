//go:build tools

// Package engine pins the Pulumi CLI in go.mod; nothing else is built from here.
package engine

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
