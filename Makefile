# One command each. `make demo` on a new Debian 12 machine with Swift 6.3 needs nothing else.
.PHONY: build image command packages demo test bench format lint clean
SWIFT_SOURCES = Package.swift Sources Tests
IMAGE_SCRATCH = .build-image
EXOKERNEL_SCRATCH = .build-exokernel
IMAGE_BUILD = $(IMAGE_SCRATCH)/x86_64-unknown-linux-gnu/release
LINK_UNIKERNEL = ld.lld -static --gc-sections -z noexecstack -z max-page-size=4096 -T Linker/image.ld \
  --symbol-ordering-file Linker/order --no-warn-symbol-ordering $(IMAGE_BUILD)/libUnikernel.a bin/exokernel.o

build: command image

command:
	@mkdir -p bin
	@# Without a dynamic linker the command starts in half the time. It looks up no users or hosts through the C library, of
	@# which the linker warns.
	swift build -c release --static-swift-stdlib -Xswiftc -static-executable --product swiftlet
	@cp -f .build/release/swiftlet bin/swiftlet

image:
	@mkdir -p bin
	swift build -c release --triple x86_64-unknown-linux-gnu --toolset Toolsets/exokernel.json \
	  --scratch-path $(EXOKERNEL_SCRATCH) --product Exokernel
	ld.lld -static --gc-sections -z noexecstack -T Linker/exokernel.ld -o bin/exokernel.elf \
	  $(EXOKERNEL_SCRATCH)/x86_64-unknown-linux-gnu/release/libExokernel.a
	objcopy -O binary bin/exokernel.elf bin/exokernel
	cd bin && objcopy -I binary -O elf64-x86-64 --rename-section .data=.exokernel,alloc,load,readonly,data,contents \
	  exokernel exokernel.o
	swift build -c release --triple x86_64-unknown-linux-gnu --toolset Toolsets/unikernel.json \
	  --scratch-path $(IMAGE_SCRATCH) --product Unikernel
	$(LINK_UNIKERNEL) -o bin/unikernel.debug
	@# Images carry the names of functions, for panics, but not the eight times as much that debuggers want.
	$(LINK_UNIKERNEL) --strip-debug -o bin/unikernel.elf

packages:
	@Tests/System/packages

demo: packages build
	@Tests/System/demo

test: packages build
	@# One target and one suite at a time: tests of the libOS set its globals (host, current thread).
	swift build --build-tests
	for target in VirtioTests NetTests Ext4Tests ImageTests VFSTests ProcessesTests PseudoFileSystemsTests; do \
	  timeout 300 swift test --skip-build --no-parallel --filter "^$$target" || exit 1; done
	@Tests/System/run

bench: build
	@Tests/System/packages wrk
	@Benchmarks/run

format:
	swift format --in-place --recursive $(SWIFT_SOURCES)

lint:
	swift format lint --strict --recursive $(SWIFT_SOURCES)
	Tests/Compatibility/system-calls --check

clean:
	rm -rf .build .build-image .build-exokernel bin
