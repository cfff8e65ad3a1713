// An upper-casing server and its clients, threads, locks, channels, a panic, processes. With an argument it only serves.
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{mpsc, Arc, Barrier, Condvar, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

fn serve(listener: TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(count) = stream.read(&mut buffer) {
                if count == 0 { return; }
                let text = String::from_utf8_lossy(&buffer[..count]).to_uppercase();
                if stream.write_all(text.as_bytes()).is_err() { return; }
            }
        });
    }
}

fn main() {
    let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
    if std::env::args().len() > 1 {
        println!("serving");
        return serve(listener);
    }
    thread::spawn(move || serve(listener));
    let clients: Vec<_> = (0..50).map(|n| thread::spawn(move || {
        let mut stream = TcpStream::connect("127.0.0.1:8080").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut sum = 0;
        for turn in 0..20 {
            let text = format!("client {n} turn {turn}");
            stream.write_all(text.as_bytes()).unwrap();
            let mut back = vec![0u8; text.len()];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, text.to_uppercase().into_bytes());
            sum += 1;
        }
        sum
    })).collect();
    println!("{}", clients.into_iter().map(|c| c.join().unwrap()).sum::<i32>());
    let shared = Arc::new((Mutex::new(0), Condvar::new()));
    let barrier = Arc::new(Barrier::new(8));
    let table = Arc::new(RwLock::new(HashMap::new()));
    for n in 0..8 {
        let (shared, barrier, table) = (shared.clone(), barrier.clone(), table.clone());
        thread::spawn(move || {
            barrier.wait();
            for turn in 0..1000 { table.write().unwrap().insert((n, turn), turn); }
            *shared.0.lock().unwrap() += 1;
            shared.1.notify_all();
        });
    }
    let mut done = shared.0.lock().unwrap();
    while *done < 8 { done = shared.1.wait(done).unwrap(); }
    println!("{} {}", *done, table.read().unwrap().len());
    let (sender, receiver) = mpsc::channel();
    for n in 0..4 { let sender = sender.clone(); thread::spawn(move || for i in 0..1000u64 { sender.send(i * n).unwrap(); }); }
    drop(sender);
    println!("{}", receiver.iter().sum::<u64>());
    println!("{}", thread::spawn(|| { if Instant::now().elapsed() < Duration::from_secs(9) { panic!("meant") } }).join().is_err());
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through cat").unwrap();
    println!("{}", String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap());
    println!("{:?}", Command::new("/nowhere").spawn().unwrap_err().kind());
    std::fs::write("/tmp/rust", vec![b'r'; 100000]).unwrap();
    println!("{}", std::fs::metadata("/tmp/rust").unwrap().len());
    let start = Instant::now();
    thread::sleep(Duration::from_millis(20));
    println!("{}", start.elapsed() >= Duration::from_millis(20));
    println!("{}", thread::available_parallelism().unwrap().get() > 0);
    std::process::exit(6);
}
